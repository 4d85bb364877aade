//! From a wave file to the end of its run. [`wave`] reads the CSV; [`check`] to [`cleanup`] are the
//! stages of one row; [`run`] takes all rows through them.

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
