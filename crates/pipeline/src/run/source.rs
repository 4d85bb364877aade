//! Promises the rows that wait for a pass, each once, in the wave's order. Must never make the
//! scheduler wait for the disk.

use std::collections::{HashSet, VecDeque};

use futures::future::LocalBoxFuture;

use crate::check::Candidate;
use tapwave_core::ids::Line;
use tapwave_core::limits;
use tapwave_ledger::{Ledger, LedgerError, RowRecord, Standing};

/// Reads the next page while rows of the one before are still left.
pub(super) struct CandidateSource {
    ledger: Ledger,
    after: Option<Line>,
    ready: VecDeque<Candidate>,
    reading: Option<LocalBoxFuture<'static, Result<Vec<RowRecord>, LedgerError>>>,
    is_read: bool,
    /// Rows that the scheduler has from elsewhere.
    taken: HashSet<Line>,
}

impl CandidateSource {
    pub(super) fn new(ledger: Ledger, taken: HashSet<Line>) -> Self {
        Self { ledger, after: None, ready: VecDeque::new(), reading: None, is_read: false, taken }
    }

    pub(super) fn next(&mut self) -> Option<Candidate> {
        self.ready.pop_front()
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.is_read && self.ready.is_empty()
    }

    /// Reads on if few rows are left; `None` if it is too early or there are no more. Dropping the
    /// future loses nothing.
    pub(super) async fn read_on(&mut self) -> Option<Result<(), LedgerError>> {
        if self.is_read || self.ready.len() > limits::ROWS_PER_READ / 2 {
            return None;
        }
        let reading = self.reading.get_or_insert_with(|| {
            let (ledger, after) = (self.ledger.clone(), self.after);
            Box::pin(async move {
                ledger.rows(&[Standing::Checked], after, limits::ROWS_PER_READ).await
            })
        });
        let page = reading.await;
        self.reading = None;
        Some(page.and_then(|rows| self.keep(&rows)))
    }

    fn keep(&mut self, rows: &[RowRecord]) -> Result<(), LedgerError> {
        self.is_read = rows.is_empty();
        self.after = rows.last().map(|row| row.line).or(self.after);
        let free = rows.iter().filter(|row| !self.taken.contains(&row.line));
        for row in free {
            self.ready.push_back(Candidate::restore(row)?);
        }
        Ok(())
    }
}
