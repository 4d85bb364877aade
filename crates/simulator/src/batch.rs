//! Promises `$batch` as Graph has it: up to twenty requests, each throttled and broken on its
//! own, answered in any order inside one 200.

use serde_json::{Map, Value, json};

use super::answer::{Body, Reply, SimulatedRefusal};
use super::passes::object;
use super::tenant::{Course, Tenant, Visit, refused};
use tapwave_core::limits;
use tapwave_graph::transport::{Method, Request};

impl Tenant {
    pub(super) fn batch(
        &mut self,
        visit: &Visit,
        outer: &Request,
    ) -> Result<Reply, SimulatedRefusal> {
        let body = object(outer.body.as_deref())?;
        let steps = body.get("requests").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if steps.is_empty() {
            return Err(wrong("Invalid batch payload format."));
        }
        if steps.len() > limits::REQUESTS_PER_BATCH {
            return Err(wrong(format!(
                "Number of batch request steps exceeds the maximum value of {}.",
                limits::REQUESTS_PER_BATCH
            )));
        }
        let mut read: Vec<(&str, Request)> = Vec::with_capacity(steps.len());
        for step in steps {
            let (id, request) = inner(step, outer)?;
            if read.iter().any(|(known, _)| *known == id) {
                return Err(wrong(format!("Request Id : {id} is duplicated.")));
            }
            read.push((id, request));
        }
        let mut answers = Vec::with_capacity(read.len());
        for (id, request) in &read {
            let visit = Visit { request_id: self.fresh_id().to_string(), ..visit.clone() };
            let reply = match self.run(&visit, request) {
                Course::Whole(reply) => reply,
                // Inside a batch nothing is lost: the gateway gives up and says so.
                Course::NotSent | Course::Lost | Course::Cut(_) => gave_up(&visit, request),
            };
            answers.push(shown(id, reply));
        }
        self.rng.shuffle(&mut answers);
        Ok(Reply::json(200, json!({"responses": answers})))
    }
}

/// One step as a request of its own. One malformed step fails the batch.
fn inner<'a>(step: &'a Value, outer: &Request) -> Result<(&'a str, Request), SimulatedRefusal> {
    let text = |name: &str| step.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let id = text("id").ok_or_else(|| wrong("Every request needs an id."))?;
    let url = text("url").ok_or_else(|| wrong(format!("Request id : {id} has no url.")))?;
    let method = match text("method") {
        Some("GET") => Method::Get,
        Some("POST") => Method::Post,
        Some("PATCH") => Method::Patch,
        Some("DELETE") => Method::Delete,
        _ => return Err(wrong(format!("Request id : {id} has no valid method."))),
    };
    if step.get("dependsOn").is_some() {
        return Err(wrong("This tenant does not order the requests of a batch."));
    }
    if !url.starts_with('/') || url.starts_with("/$batch") {
        return Err(wrong(format!("Request id : {id} has an invalid url.")));
    }
    let header = |name: &str| {
        let headers = step.get("headers").and_then(Value::as_object)?;
        let found = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.and_then(|(_, value)| value.as_str())
    };
    let body = step.get("body");
    let json = header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    if body.is_some() && !json || body.is_none() && matches!(method, Method::Post | Method::Patch) {
        let message =
            format!("Write request id : {id} does not contain Content-Type header or body.");
        return Err(wrong(message));
    }
    let request = Request {
        method,
        target: url.to_owned(),
        eventual: header("consistencylevel")
            .is_some_and(|level| level.eq_ignore_ascii_case("eventual")),
        body: body.map(|body| body.to_string().into_bytes()),
        client_request_id: outer.client_request_id,
    };
    Ok((id, request))
}

fn gave_up(visit: &Visit, request: &Request) -> Reply {
    let message = "The service did not answer in time.";
    refused(visit, request, SimulatedRefusal::new(504, "GatewayTimeout", message))
}

fn shown(id: &str, reply: Reply) -> Value {
    let mut headers = Map::new();
    if let Some(retry_after) = reply.retry_after {
        headers.insert("Retry-After".into(), Value::from(retry_after));
    }
    let (kind, body) = match reply.body {
        Body::Empty => (None, None),
        Body::Text(text) => (Some("text/plain"), Some(Value::from(text))),
        Body::Json(value) => (Some("application/json"), Some(value)),
    };
    if let Some(kind) = kind {
        headers.insert("Content-Type".into(), Value::from(kind));
    }
    let mut shown = json!({"id": id, "status": reply.status, "headers": headers});
    if let Some(body) = body {
        shown["body"] = body;
    }
    shown
}

fn wrong(message: impl Into<String>) -> SimulatedRefusal {
    SimulatedRefusal::new(400, "BadRequest", message)
}
