//! Mail: [`template`] renders a pass into a mail, [`transport`] sends it.

pub mod template;
pub mod transport;
