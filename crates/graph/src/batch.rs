//! Promises that many idempotent requests become few HTTP calls, and that each is answered.
//!
//! Up to twenty go into one `$batch`, as many as the limiter lets leave at once; answers come
//! in any order; each inner request is throttled on its own inside an outer 200 and only those
//! are sent again. Never used for issuing passes: one lost answer would be twenty lost secrets.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use zeroize::Zeroizing;

use super::transport::{Method, Response};
use super::verdict::{self, Refusal, Verdict};
use super::wire::BatchedRequest;
use super::{Graph, GraphError, RepeatBudget, outage, wire};
use crate::limiter::{Budget, Permit, Throttled};
use tapwave_core::effect::{Effect, Obstacle, ObstacleKind};
use tapwave_core::limits;

/// What one inner request came to: the body of a success, or a definite no.
pub type BatchedAnswer = Result<Zeroizing<Vec<u8>>, Refusal>;

/// A request that has no answer yet.
struct OpenRequest {
    index: usize,
    patience: RepeatBudget,
}

/// The requests that wait for a batch, in the order in which they go.
struct Queue(Mutex<VecDeque<OpenRequest>>);

impl Queue {
    fn of(count: usize) -> Self {
        let open = |index| OpenRequest { index, patience: RepeatBudget::new() };
        Self(Mutex::new((0..count).map(open).collect()))
    }

    /// How many would go into one batch.
    fn waiting(&self) -> u32 {
        let most = self.open().len().min(limits::REQUESTS_PER_BATCH);
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    fn take(&self, most: u32) -> Vec<OpenRequest> {
        let mut open = self.open();
        let count = open.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        open.drain(..count).collect()
    }

    /// What was sent goes before what was not.
    fn put_back(&self, unanswered: Vec<OpenRequest>) {
        let mut open = self.open();
        unanswered.into_iter().rev().for_each(|one| open.push_front(one));
    }

    /// Each step leaves it whole, so a panic elsewhere does not spoil it.
    fn open(&self) -> MutexGuard<'_, VecDeque<OpenRequest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Graph {
    /// Sends every request, up to twenty to a call, and repeats what was throttled or lost
    /// until each has its answer, in the order of the requests.
    ///
    /// # Errors
    /// [`GraphError::SignIn`], or [`GraphError::Outage`] when patience ends: with losses, or
    /// with [`limits::MAX_OUTAGE`] of nothing but refusals.
    pub async fn batch(
        &self,
        budget: Budget,
        requests: Vec<BatchedRequest>,
    ) -> Result<Vec<BatchedAnswer>, GraphError> {
        let mut answers: Vec<Option<BatchedAnswer>> = requests.iter().map(|_| None).collect();
        let keep = |index: usize, answer| {
            if let Some(slot) = answers.get_mut(index) {
                slot.get_or_insert(answer);
            }
        };
        self.batch_each(budget, requests, keep).await?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// The same, with the answers as they come, each with the place of its request: what was
    /// answered before an error, or before this is dropped, is not lost.
    pub async fn batch_each(
        &self,
        budget: Budget,
        requests: Vec<BatchedRequest>,
        mut each: impl FnMut(usize, BatchedAnswer),
    ) -> Result<(), GraphError> {
        let queue = Queue::of(requests.len());
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < limits::BATCHES_IN_FLIGHT && queue.waiting() > 0 {
                under_way.push(self.one_batch(budget, &requests, &queue));
            }
            let Some(found) = under_way.next().await else { break };
            for (index, answer) in found? {
                each(index, answer);
            }
        }
        Ok(())
    }

    /// One HTTP call with as many of the waiting requests as may leave. Gives the answers that
    /// are final; the others wait again.
    async fn one_batch(
        &self,
        budget: Budget,
        requests: &[BatchedRequest],
        queue: &Queue,
    ) -> Result<Vec<(usize, BatchedAnswer)>, GraphError> {
        let Some(permit) = self.leave_for_batch(budget, queue).await? else {
            return Ok(Vec::new());
        };
        let sent = queue.take(permit.count());
        if sent.is_empty() {
            return Ok(Vec::new());
        }
        let named: Vec<(String, &BatchedRequest)> = sent
            .iter()
            .filter_map(|one| Some((one.index.to_string(), requests.get(one.index)?)))
            .collect();
        let request =
            Self::request(Method::Post, "/$batch".to_owned(), Some(wire::batch_body(&named)));
        let count = u32::try_from(sent.len()).unwrap_or(u32::MAX);
        let Verdict { effect, wait, between } = self.exchange(&request).await;
        if let Some(why) = between {
            permit.broken();
            return Err(GraphError::Between { why });
        }
        match effect {
            Effect::Done(response) => {
                let sorted = Sorted::from(&response, requests, sent, &self.clock.now());
                return self.sorted(budget, permit, queue, sorted).await;
            }
            Effect::Refused(refusal) => {
                permit.answered(count, None);
                return Err(GraphError::Refused { doing: "send a batch of requests", refusal });
            }
            Effect::NoEffect(Obstacle { kind: ObstacleKind::Throttled, .. }) => {
                queue.put_back(sent);
                self.tally.throttled(u64::from(count));
                permit.answered(0, Some(Throttled { count, retry_after: wait }));
                self.still_hopeful(budget)?;
            }
            Effect::NoEffect(Obstacle { kind: ObstacleKind::SignIn, why }) => {
                permit.broken();
                return Err(GraphError::SignIn { why });
            }
            Effect::NoEffect(Obstacle { why, .. }) | Effect::Unsettled { why } => {
                permit.broken();
                self.repeat_later(queue, sent, why, wait).await?;
            }
        }
        Ok(Vec::new())
    }

    /// Tells the limiter what came back, and lets wait again what has no answer.
    async fn sorted(
        &self,
        budget: Budget,
        permit: Permit,
        queue: &Queue,
        sorted: Sorted,
    ) -> Result<Vec<(usize, BatchedAnswer)>, GraphError> {
        let throttled = u32::try_from(sorted.throttled.len()).unwrap_or(u32::MAX);
        let others = u32::try_from(sorted.finals.len() + sorted.lost.len()).unwrap_or(u32::MAX);
        self.tally.throttled(u64::from(throttled));
        queue.put_back(sorted.throttled);
        permit.answered(
            others,
            (throttled > 0).then_some(Throttled { count: throttled, retry_after: sorted.wait }),
        );
        if let Some(why) = sorted.sign_in {
            return Err(GraphError::SignIn { why });
        }
        self.still_hopeful(budget)?;
        if let Some(why) = sorted.why_lost {
            self.repeat_later(queue, sorted.lost, why, None).await?;
        }
        Ok(sorted.finals)
    }

    /// Waits as long as the most often lost of these requests deserves, and lets them wait
    /// for a batch again.
    async fn repeat_later(
        &self,
        queue: &Queue,
        mut lost: Vec<OpenRequest>,
        why: String,
        wait: Option<Duration>,
    ) -> Result<(), GraphError> {
        let spent = lost.iter().map(|one| one.patience).max().unwrap_or(RepeatBudget::new());
        let mut patience = spent;
        patience.spend(self, why, wait).await?;
        for one in &mut lost {
            one.patience = patience;
        }
        queue.put_back(lost);
        Ok(())
    }

    /// Leave to send at once; none when nothing is waiting any more.
    ///
    /// # Errors
    /// [`GraphError::Outage`], if Graph wants to be left alone for too long.
    async fn leave_for_batch(
        &self,
        budget: Budget,
        queue: &Queue,
    ) -> Result<Option<Permit>, GraphError> {
        loop {
            let permit = self.limiter.admit_batch(budget, || queue.waiting()).await;
            let Some(mut permit) = permit.map_err(outage)? else { return Ok(None) };
            if permit.depart().await {
                return Ok(Some(permit));
            }
        }
    }
}

/// One outer answer, taken apart.
struct Sorted {
    finals: Vec<(usize, BatchedAnswer)>,
    throttled: Vec<OpenRequest>,
    wait: Option<Duration>,
    sign_in: Option<String>,
    lost: Vec<OpenRequest>,
    why_lost: Option<String>,
}

impl Sorted {
    fn from(
        response: &Response,
        requests: &[BatchedRequest],
        sent: Vec<OpenRequest>,
        now: &jiff::Timestamp,
    ) -> Self {
        let mut sorted = Self {
            finals: Vec::new(),
            throttled: Vec::new(),
            wait: None,
            sign_in: None,
            lost: Vec::new(),
            why_lost: None,
        };
        let Ok(outer) = serde_json::from_slice::<wire::BatchAnswers<'_>>(&response.body) else {
            sorted.lost = sent;
            sorted.why_lost = Some("the answer to a batch could not be read".to_owned());
            return sorted;
        };
        let mut by_id: HashMap<&str, &wire::BatchAnswer<'_>> =
            outer.responses.iter().map(|answer| (answer.id.as_ref(), answer)).collect();
        for one in sent {
            match by_id.remove(one.index.to_string().as_str()) {
                // Documented: 204 says that it is deleted. What another success says, nobody knows.
                Some(answer)
                    if (200..300).contains(&answer.status)
                        && answer.status != 204
                        && requests.get(one.index).is_some_and(BatchedRequest::is_delete) =>
                {
                    let status = answer.status;
                    let why = format!("Graph answered a deletion with HTTP {status} and not 204");
                    sorted.lose(one, why);
                }
                Some(answer) => sorted.sort(one, answer, response, now),
                None => sorted.lose(one, "a batch left a request unanswered".to_owned()),
            }
        }
        sorted
    }

    fn sort(
        &mut self,
        one: OpenRequest,
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
        let Verdict { effect, wait, .. } = verdict::judge(Ok(inner), *now);
        match effect {
            Effect::Done(inner) => self.finals.push((one.index, Ok(inner.body))),
            Effect::Refused(refusal) => self.finals.push((one.index, Err(refusal))),
            Effect::NoEffect(Obstacle { kind: ObstacleKind::Throttled, .. }) => {
                self.throttled.push(one);
                self.wait = self.wait.max(wait);
            }
            Effect::NoEffect(Obstacle { kind: ObstacleKind::SignIn, why }) => {
                self.lost.push(one);
                self.sign_in = Some(why);
            }
            Effect::NoEffect(Obstacle { why, .. }) | Effect::Unsettled { why } => {
                self.lose(one, why);
            }
        }
    }

    fn lose(&mut self, one: OpenRequest, why: String) {
        self.lost.push(one);
        self.why_lost = Some(why);
    }
}
