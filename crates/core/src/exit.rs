//! Promises that every exit code has one name and one meaning.
//!
//! The codes are a contract with scripts; they never change meaning. Only `main.rs` exits.

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All done.
    Done = 0,
    /// Something nobody foresaw.
    Unexpected = 1,
    /// The command line, the settings, or a file it names cannot be used as they are.
    Usage = 2,
    /// The check found problems; nothing was changed.
    Problems = 3,
    /// Some rows failed, are unsettled, or are held; the rest is done.
    RowsFailed = 4,
    /// Sign-in failed, a permission is missing, the sender of mails may not send, or something
    /// stands between us and Graph or the relay.
    Access = 5,
    /// Gave up on throttling or an outage; resume later.
    Outage = 6,
    /// Some mail was not delivered.
    DeliveryIncomplete = 7,
    /// Cleanup could not remove, or prove the removal of, every pass.
    CleanupIncomplete = 8,
    /// Interrupted; resume later.
    Interrupted = 130,
}

impl Exit {
    /// The code that wins where several apply: 5, 6, 4, 7, in that order, and any of them
    /// over 0.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        const ORDER: [Exit; 10] = [
            Exit::Unexpected,
            Exit::Interrupted,
            Exit::Usage,
            Exit::Access,
            Exit::Outage,
            Exit::Problems,
            Exit::CleanupIncomplete,
            Exit::RowsFailed,
            Exit::DeliveryIncomplete,
            Exit::Done,
        ];
        ORDER.into_iter().find(|exit| *exit == self || *exit == other).unwrap_or(self)
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn the_order_is_the_written_one() {
        assert_eq!(Exit::RowsFailed.and(Exit::Access), Exit::Access);
        assert_eq!(Exit::Outage.and(Exit::RowsFailed), Exit::Outage);
        assert_eq!(Exit::DeliveryIncomplete.and(Exit::RowsFailed), Exit::RowsFailed);
        assert_eq!(Exit::Done.and(Exit::DeliveryIncomplete), Exit::DeliveryIncomplete);
    }
}
