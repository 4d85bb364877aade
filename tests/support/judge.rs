//! Promises an opinion on every request and answer that is neither tapwave's nor the
//! simulated tenant's: that of Microsoft's own metadata, in `tests/graph/`.
//!
//! What the metadata leaves open the judge closes: a property that a type does not have is an
//! objection, whether we send it or the tenant does.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use jsonschema::Validator;
use serde_json::{Map, Value, json};
use tapwave_graph::transport::{Broken, Method, Request, Response, Transport};
use zeroize::Zeroizing;

const SLICE: &str = include_str!("../graph/graph-v1-tap-slice.openapi.yaml");

/// Judges exchanges by the `OpenAPI` slice.
pub(crate) struct Judge {
    operations: Vec<Operation>,
    schemas: Map<String, Value>,
    validators: Mutex<HashMap<(Side, String), Arc<Validator>>>,
}

/// Read-only properties may be in an answer and not in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Request,
    Response,
}

struct Operation {
    name: String,
    method: &'static str,
    template: Vec<String>,
    /// Query options and their schemas.
    options: HashMap<String, Value>,
    takes_consistency_level: bool,
    body: Option<Value>,
    answers: BTreeMap<String, Content>,
}

/// Names and values, decoded.
type Query = Vec<(String, String)>;

enum Content {
    Json(Value),
    Text,
    Nothing,
}

impl Judge {
    /// Reads the slice.
    pub(crate) fn new() -> Self {
        let slice: Value = serde_yaml_ng::from_str(SLICE).expect("the slice is YAML");
        let schemas = slice["components"]["schemas"].as_object().expect("schemas").clone();
        let mut operations = Vec::new();
        for (path, item) in slice["paths"].as_object().expect("paths") {
            for (key, method) in
                [("get", "GET"), ("post", "POST"), ("patch", "PATCH"), ("delete", "DELETE")]
            {
                if item.get(key).is_some() {
                    operations.push(Operation::read(&slice, path, method, &item[key]));
                }
            }
        }
        Self { operations, schemas, validators: Mutex::default() }
    }

    /// Everything that is wrong with an exchange; nothing when all is well.
    pub(crate) fn check(&self, request: &Request, response: &Response) -> Vec<String> {
        let mut wrong = self.check_request(request);
        wrong.extend(self.check_response(request, response));
        wrong
    }

    /// Everything that is wrong with a request.
    pub(crate) fn check_request(&self, request: &Request) -> Vec<String> {
        let (operation, query) = match self.find(request) {
            Ok(found) => found,
            Err(wrong) => return vec![wrong],
        };
        let mut wrong = Vec::new();
        let mut known = Vec::new();
        for (name, value) in &query {
            match operation.options.get(name) {
                None => wrong.push(format!("there is no query option {name}")),
                Some(_) if known.contains(&name) => wrong.push(format!("{name} stands twice")),
                Some(schema) => wrong.extend(self.check_option(name, value, schema)),
            }
            known.push(name);
        }
        if request.eventual && !operation.takes_consistency_level {
            wrong.push("it takes no ConsistencyLevel".into());
        }
        match (&operation.body, &request.body) {
            (None, None) => {}
            (None, Some(_)) => wrong.push("it takes no body".into()),
            (Some(_), None) => wrong.push("it needs a body".into()),
            (Some(schema), Some(body)) => {
                wrong.extend(self.check_json(Side::Request, schema, body));
            }
        }
        if operation.template == ["$batch"] {
            wrong.extend(self.check_steps(request));
        }
        wrong.iter().map(|wrong| format!("{}: request: {wrong}", operation.name)).collect()
    }

    /// Everything that is wrong with the answer to a request.
    pub(crate) fn check_response(&self, request: &Request, response: &Response) -> Vec<String> {
        let Ok((operation, _)) = self.find(request) else {
            return Vec::new();
        };
        let status = response.status;
        // A gateway before Graph has no metadata: its HTML is nobody's promise.
        if matches!(status, 502..=504) && response.body.starts_with(b"<") {
            return Vec::new();
        }
        let class = format!("{}XX", status / 100);
        let content = operation.answers.get(&status.to_string());
        let mut wrong = match content.or_else(|| operation.answers.get(&class)) {
            None => vec!["the status is not among the documented".into()],
            Some(Content::Json(schema)) => self.check_json(Side::Response, schema, &response.body),
            Some(Content::Nothing) if response.body.is_empty() => Vec::new(),
            Some(Content::Nothing) => vec!["it has no body".into()],
            Some(Content::Text) => {
                let number = std::str::from_utf8(&response.body).ok().map(str::parse::<u32>);
                if matches!(number, Some(Ok(_))) { Vec::new() } else { vec!["not a count".into()] }
            }
        };
        if operation.template == ["$batch"] && status == 200 {
            wrong.extend(self.check_answers(request, response));
        }
        wrong.iter().map(|wrong| format!("{}: {status}: {wrong}", operation.name)).collect()
    }

    fn find(&self, request: &Request) -> Result<(&Operation, Query), String> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let method = request.method.as_str();
        if !request.target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err(format!("{method}: the target is not percent-encoded"));
        }
        let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
        let mut fitting: Vec<&Operation> = self
            .operations
            .iter()
            .filter(|operation| operation.method == method && operation.fits(&segments))
            .collect();
        // The path with the fewest parameters is the one that is meant.
        fitting.sort_by_key(|operation| operation.parameters());
        let operation = fitting
            .first()
            .ok_or_else(|| format!("{method} of an unknown path of {segments:?}"))?;
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let query = pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decoded(name), decoded(value))
            })
            .collect();
        Ok((operation, query))
    }

    fn check_option(&self, name: &str, value: &str, schema: &Value) -> Vec<String> {
        let value = match schema["type"].as_str() {
            Some("integer" | "boolean") => serde_json::from_str(value).unwrap_or(json!(value)),
            _ => json!(value),
        };
        let wrong = self.check_value(Side::Request, schema, &value);
        wrong.iter().map(|wrong| format!("{name}: {wrong}")).collect()
    }

    fn check_json(&self, side: Side, schema: &Value, body: &[u8]) -> Vec<String> {
        match serde_json::from_slice(body) {
            Ok(value) => self.check_value(side, schema, &value),
            Err(_) => vec!["the body is not JSON".into()],
        }
    }

    fn check_value(&self, side: Side, schema: &Value, value: &Value) -> Vec<String> {
        let key = (side, schema.to_string());
        let mut validators = self.validators.lock().expect("no judge panics");
        let validator = validators.entry(key).or_insert_with(|| {
            let rules = Rules { side, schemas: &self.schemas };
            Arc::new(rules.validator(schema))
        });
        let validator = Arc::clone(validator);
        drop(validators);
        // Masked: an objection must not show a pass.
        validator
            .iter_errors(value)
            .map(|error| format!("{} at {}", error.masked(), error.instance_path()))
            .collect()
    }

    fn check_steps(&self, request: &Request) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut ids = Vec::new();
        for step in steps(request) {
            let id = step["id"].as_str().unwrap_or_default().to_owned();
            if step.get("body").is_some()
                && header(&step, "content-type") != Some("application/json")
            {
                wrong.push(format!("step {id}: a body without its Content-Type"));
            }
            match inner(&step) {
                Some(inner) => wrong.extend(self.check_request(&inner)),
                None => wrong.push(format!("step {id}: no request")),
            }
            if ids.contains(&id) {
                wrong.push(format!("step {id}: the id stands twice"));
            }
            ids.push(id);
        }
        wrong
    }

    fn check_answers(&self, request: &Request, response: &Response) -> Vec<String> {
        let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        let answers = body["responses"].as_array().cloned().unwrap_or_default();
        let steps = steps(request);
        let mut wrong = Vec::new();
        if answers.len() != steps.len() {
            wrong.push(format!("{} answers to {} steps", answers.len(), steps.len()));
        }
        for step in steps {
            let mut mine = answers.iter().filter(|answer| answer["id"] == step["id"]);
            match (inner(&step), mine.next(), mine.next()) {
                (Some(inner), Some(answer), None) => {
                    wrong.extend(self.check_response(&inner, &inner_response(answer)));
                }
                _ => wrong.push(format!("step {}: not answered once", step["id"])),
            }
        }
        wrong
    }
}

impl Operation {
    fn read(slice: &Value, path: &str, method: &'static str, found: &Value) -> Self {
        let parameters = found["parameters"].as_array().cloned().unwrap_or_default();
        let options = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query")
            .filter_map(|one| Some((one["name"].as_str()?.to_owned(), one["schema"].clone())))
            .collect();
        let answers = found["responses"].as_object().expect("responses");
        let answers = answers.iter().map(|(status, answer)| {
            let answer = match answer["$ref"].as_str() {
                Some(place) => slice.pointer(&place[1..]).expect("a response"),
                None => answer,
            };
            let json = answer.pointer("/content/application~1json/schema");
            let text = answer.pointer("/content/text~1plain");
            let content = match (json, text) {
                (Some(schema), _) => Content::Json(schema.clone()),
                (None, Some(_)) => Content::Text,
                (None, None) => Content::Nothing,
            };
            (status.clone(), content)
        });
        Self {
            name: format!("{method} {path}"),
            method,
            // The slice writes a cast's type shorter than the wire does.
            template: path
                .trim_start_matches('/')
                .split('/')
                .map(|segment| segment.replace("graph.", "microsoft.graph."))
                .collect(),
            options,
            takes_consistency_level: parameters.iter().any(|one| one["name"] == "ConsistencyLevel"),
            body: found.pointer("/requestBody/content/application~1json/schema").cloned(),
            answers: answers.collect(),
        }
    }

    fn fits(&self, segments: &[&str]) -> bool {
        self.template.len() == segments.len()
            && self.template.iter().zip(segments).all(|(template, segment)| {
                template == segment || template.starts_with('{') && !segment.is_empty()
            })
    }

    fn parameters(&self) -> usize {
        self.template.iter().filter(|segment| segment.starts_with('{')).count()
    }
}

/// Turns `OpenAPI` 3.0 into JSON Schema 2020-12.
struct Rules<'a> {
    side: Side,
    schemas: &'a Map<String, Value>,
}

impl Rules<'_> {
    fn validator(&self, schema: &Value) -> Validator {
        let schemas: Map<String, Value> = self
            .schemas
            .iter()
            .map(|(name, schema)| (name.clone(), self.definition(schema)))
            .collect();
        let document = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [self.used(schema)],
            "components": {"schemas": schemas},
        });
        jsonschema::options()
            .should_validate_formats(true)
            .build(&document)
            .expect("the slice converts to a schema")
    }

    /// A schema where it is used: closed against properties it does not name.
    fn used(&self, schema: &Value) -> Value {
        let null = |inner: Value| match schema["nullable"].as_bool() {
            Some(true) => json!({"anyOf": [inner, {"type": "null"}]}),
            _ => inner,
        };
        if self.side == Side::Request && schema["readOnly"] == true {
            return json!(false);
        }
        if let Some(place) = schema["$ref"].as_str() {
            let kinds: Vec<Value> =
                self.kinds(place).iter().map(|kind| closed(json!({"$ref": kind}))).collect();
            return match kinds.as_slice() {
                [one] => one.clone(),
                _ => json!({"anyOf": kinds}),
            };
        }
        if let Some(parts) = schema["allOf"].as_array() {
            return null(match parts.as_slice() {
                [one] => self.used(one),
                _ => closed(self.definition(schema)),
            });
        }
        if let Some(parts) = schema["anyOf"].as_array() {
            let parts: Vec<Value> = parts.iter().map(|part| self.used(part)).collect();
            return null(json!({"anyOf": parts}));
        }
        let rule = self.definition(schema);
        null(if schema.get("properties").is_some() { closed(rule) } else { rule })
    }

    /// A schema as others build on it: open.
    fn definition(&self, schema: &Value) -> Value {
        let Some(schema) = schema.as_object() else { return schema.clone() };
        let mut rule = Map::new();
        for (key, value) in schema {
            let value = match key.as_str() {
                "properties" => {
                    let each = value.as_object().into_iter().flatten();
                    each.map(|(name, schema)| (name.clone(), self.used(schema))).collect()
                }
                "items" => self.used(value),
                "allOf" => value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|part| self.definition(part))
                    .collect(),
                "type"
                | "enum"
                | "required"
                | "minimum"
                | "maximum"
                | "minItems"
                | "maxItems"
                | "pattern"
                | "additionalProperties"
                | "$ref"
                | "format" => value.clone(),
                _ => continue,
            };
            rule.insert(key.clone(), value);
        }
        Value::Object(rule)
    }

    /// A type and the types that may stand in its place.
    fn kinds(&self, place: &str) -> Vec<String> {
        let name = place.rsplit('/').next().unwrap_or_default();
        let mut kinds = vec![place.to_owned()];
        let parts = self.schemas.get(name).and_then(|schema| schema["allOf"].as_array());
        for part in parts.into_iter().flatten() {
            let mapping = part.pointer("/discriminator/mapping").and_then(Value::as_object);
            let places = mapping.into_iter().flatten().filter_map(|(_, place)| place.as_str());
            kinds.extend(places.map(str::to_owned));
        }
        kinds
    }
}

/// Lets in `OData`'s annotations and nothing else that is not named.
fn closed(mut rule: Value) -> Value {
    if let Some(rule) = rule.as_object_mut() {
        rule.insert("patternProperties".into(), json!({"@odata\\.": {}}));
        rule.insert("unevaluatedProperties".into(), json!(false));
    }
    rule
}

fn decoded(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

fn steps(request: &Request) -> Vec<Value> {
    let body: Value = request
        .body
        .as_deref()
        .and_then(|body| serde_json::from_slice(body).ok())
        .unwrap_or_default();
    body["requests"].as_array().cloned().unwrap_or_default()
}

fn header<'a>(step: &'a Value, name: &str) -> Option<&'a str> {
    let headers = step["headers"].as_object()?;
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).and_then(|(_, v)| v.as_str())
}

fn inner(step: &Value) -> Option<Request> {
    let method = match step["method"].as_str()? {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        _ => return None,
    };
    Some(Request {
        method,
        target: step["url"].as_str()?.to_owned(),
        eventual: header(step, "consistencylevel") == Some("eventual"),
        body: step.get("body").map(|body| body.to_string().into_bytes()),
        client_request_id: "00000000-0000-4000-8000-000000000000".parse().ok()?,
    })
}

fn inner_response(answer: &Value) -> Response {
    let body = match answer.get("body") {
        None => Vec::new(),
        Some(Value::String(text)) => text.clone().into_bytes(),
        Some(body) => body.to_string().into_bytes(),
    };
    Response {
        status: answer["status"]
            .as_u64()
            .and_then(|status| u16::try_from(status).ok())
            .unwrap_or(0),
        retry_after: header(answer, "retry-after").map(str::to_owned),
        date: None,
        request_id: None,
        load: None,
        body: Zeroizing::new(body),
    }
}

/// A transport under the judge's eyes.
pub(crate) struct Judged<T> {
    inner: T,
    judge: Arc<Judge>,
    wrong: Mutex<Vec<String>>,
}

impl<T: Transport> Judged<T> {
    /// Watches a transport.
    pub(crate) fn new(inner: T, judge: Arc<Judge>) -> Self {
        Self { inner, judge, wrong: Mutex::default() }
    }

    /// Everything that was wrong so far.
    pub(crate) fn objections(&self) -> Vec<String> {
        self.wrong.lock().expect("no judge panics").clone()
    }

    /// What is watched.
    pub(crate) fn inner(&self) -> &T {
        &self.inner
    }
}

impl<T: Transport> Transport for Judged<T> {
    fn exchange<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, Broken>> {
        Box::pin(async move {
            let outcome = self.inner.exchange(request).await;
            let wrong = match &outcome {
                Ok(response) => self.judge.check(request, response),
                Err(_) => self.judge.check_request(request),
            };
            self.wrong.lock().expect("no judge panics").extend(wrong);
            outcome
        })
    }

    fn base(&self) -> &str {
        self.inner.base()
    }
}
