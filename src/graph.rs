//! The verbs of Graph that tapwave uses.
pub mod transport;
