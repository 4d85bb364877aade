//! (being written)
pub mod events;
pub mod state;
