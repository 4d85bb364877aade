//! From a wave to its last word: [`wave`] reads the CSV, [`check`] to [`cleanup`] are a row's way,
//! [`run`] conducts them.

pub mod check;
pub mod cleanup;
pub mod deliver;
pub mod issue;
pub mod policy;
pub mod reconcile;
pub mod run;
pub mod seal;
pub mod stop;
pub mod wave;
pub mod worker;
