//! Letters and their way: [`template`] writes a pass into a mail, [`transport`] carries it.

pub mod template;
pub mod transport;
