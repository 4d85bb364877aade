//! Promises that many idempotent requests become few HTTP calls, and that each is answered.
//!
//! Twenty go into one `$batch`; answers come in any order; each inner request is throttled
//! on its own inside an outer 200 and only those are sent again. Never used for issuing
//! passes: one lost answer would be twenty lost secrets.

use std::collections::HashMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use zeroize::Zeroizing;

use super::transport::{Method, Response};
use super::verdict::{self, Refusal, Verdict};
use super::wire::Inner;
use super::{Graph, GraphError, Patience, wire};
use crate::limits;
use crate::pace::{Budget, Throttled};

/// Batches under way at once; the limiter's window rules beneath this.
const BATCHES_AT_ONCE: usize = 8;

/// What one inner request came to: the body of a success, or a definite no.
pub type Answer = Result<Zeroizing<Vec<u8>>, Refusal>;

impl Graph {
    /// Sends every request, twenty to a call, and repeats what was throttled or lost until
    /// each has its answer, in the order of the requests.
    ///
    /// # Errors
    /// [`GraphError::SignIn`], or [`GraphError::Outage`] when patience ends: with losses, or
    /// with [`limits::MAX_OUTAGE`] of nothing but refusals.
    pub async fn batch(
        &self,
        budget: Budget,
        requests: Vec<Inner>,
    ) -> Result<Vec<Answer>, GraphError> {
        let chunks: Vec<&[Inner]> = requests.chunks(limits::REQUESTS_PER_BATCH).collect();
        let answers: Vec<Vec<Answer>> = stream::iter(chunks)
            .map(|chunk| self.whole_batch(budget, chunk))
            .buffered(BATCHES_AT_ONCE)
            .try_collect()
            .await?;
        Ok(answers.into_iter().flatten().collect())
    }

    async fn whole_batch(
        &self,
        budget: Budget,
        requests: &[Inner],
    ) -> Result<Vec<Answer>, GraphError> {
        let mut answers: Vec<Option<Answer>> = requests.iter().map(|_| None).collect();
        let mut patience = Patience::new();
        loop {
            let waiting: Vec<(String, &Inner)> = (0..requests.len())
                .filter(|index| answers[*index].is_none())
                .map(|index| (index.to_string(), &requests[index]))
                .collect();
            if waiting.is_empty() {
                return Ok(answers.into_iter().flatten().collect());
            }
            let found = self.one_batch(budget, &waiting, &mut patience).await?;
            for (index, answer) in found {
                if let Some(slot) = answers.get_mut(index) {
                    slot.get_or_insert(answer);
                }
            }
        }
    }

    /// One HTTP call. Gives the answers that are final; the others are left for the next.
    async fn one_batch(
        &self,
        budget: Budget,
        waiting: &[(String, &Inner)],
        patience: &mut Patience,
    ) -> Result<Vec<(usize, Answer)>, GraphError> {
        let count = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
        let permit = self.leave(budget, count).await?;
        let request =
            Self::request(Method::Post, "/$batch".to_owned(), Some(wire::batch_body(waiting)));
        let response = match self.exchange(&request).await {
            Verdict::Done(response) => response,
            Verdict::RetryAfter { wait } => {
                self.tally.throttled(u64::from(count));
                permit.answered(0, Some(Throttled { count, retry_after: wait }), None);
                self.still_hopeful(budget)?;
                return Ok(Vec::new());
            }
            Verdict::Refused(refusal) => {
                permit.answered(count, None, None);
                return Err(GraphError::Refused { doing: "send a batch of requests", refusal });
            }
            other => {
                permit.broken();
                patience.spend(self, other).await?;
                return Ok(Vec::new());
            }
        };
        let sorted = Sorted::from(&response, waiting, &self.clock.now());
        let throttled = sorted.throttled;
        self.tally.throttled(u64::from(throttled));
        permit.answered(
            count.saturating_sub(throttled),
            (throttled > 0).then_some(Throttled { count: throttled, retry_after: sorted.wait }),
            response.load,
        );
        if let Some(why) = sorted.sign_in {
            return Err(GraphError::SignIn { why });
        }
        self.still_hopeful(budget)?;
        if let Some(lost) = sorted.lost {
            patience.spend(self, Verdict::Unsettled { why: lost, wait: None }).await?;
        }
        Ok(sorted.finals)
    }
}

/// One outer answer, taken apart.
struct Sorted {
    finals: Vec<(usize, Answer)>,
    throttled: u32,
    wait: Option<Duration>,
    sign_in: Option<String>,
    lost: Option<String>,
}

impl Sorted {
    fn from(response: &Response, waiting: &[(String, &Inner)], now: &jiff::Timestamp) -> Self {
        let mut sorted =
            Self { finals: Vec::new(), throttled: 0, wait: None, sign_in: None, lost: None };
        let Ok(outer) = serde_json::from_slice::<wire::BatchAnswers<'_>>(&response.body) else {
            sorted.lost = Some("the answer to a batch could not be read".to_owned());
            return sorted;
        };
        let mut by_id: HashMap<&str, &wire::BatchAnswer<'_>> =
            outer.responses.iter().map(|answer| (answer.id.as_ref(), answer)).collect();
        for (id, _) in waiting {
            let Some(answer) = by_id.remove(id.as_str()) else {
                sorted.lost = Some("a batch left a request unanswered".to_owned());
                continue;
            };
            let index = id.parse().unwrap_or(usize::MAX);
            sorted.sort(index, answer, response, now);
        }
        sorted
    }

    fn sort(
        &mut self,
        index: usize,
        answer: &wire::BatchAnswer<'_>,
        outer: &Response,
        now: &jiff::Timestamp,
    ) {
        let body = answer.body.map(|body| body.get().as_bytes().to_vec()).unwrap_or_default();
        let inner = Response {
            status: answer.status,
            retry_after: answer.retry_after(),
            date: outer.date,
            request_id: outer.request_id.clone(),
            load: None,
            body: Zeroizing::new(body),
        };
        match verdict::judge(Ok(inner), *now) {
            Verdict::Done(inner) => self.finals.push((index, Ok(inner.body))),
            Verdict::Refused(refusal) => self.finals.push((index, Err(refusal))),
            Verdict::RetryAfter { wait } => {
                self.throttled += 1;
                self.wait = self.wait.max(wait);
            }
            Verdict::SignIn { why } => self.sign_in = Some(why),
            Verdict::NotSent { why } | Verdict::Unsettled { why, .. } => self.lost = Some(why),
        }
    }
}
