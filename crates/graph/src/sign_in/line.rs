//! Promises that the identity library hears the sign-in address alone: what stands in between is
//! told as such and not tried again, and an outage is one by its status, whatever it is written
//! in.

use azure_core::Result;
use azure_core::error::{Error, ErrorKind};
use azure_core::http::headers::{CONTENT_TYPE, HeaderName};
use azure_core::http::{AsyncRawResponse, Body, HttpClient, RawResponse, Request};

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::explain::PLACE;
use crate::between::Intermediary;
use crate::http::Network;

/// What the library is given for an outage that is not told in JSON: it looks for the platform's
/// words before it looks at the status.
const NO_WORDS: &[u8] = br#"{"error":"temporarily_unavailable","error_description":"it cannot answer now","error_codes":[]}"#;

/// The way to the sign-in address.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) client: reqwest::Client,
    pub(super) network: Network,
}

#[async_trait::async_trait]
impl HttpClient for Watched {
    async fn execute_request(&self, request: &Request) -> Result<AsyncRawResponse> {
        let answer = match self.client.execute_request(request).await {
            Ok(answer) => answer.try_into_raw_response().await?,
            Err(error) => {
                let found =
                    Intermediary::of_error(PLACE, request.url(), &error, &self.network).await;
                return Err(found.map_or(error, sign_in_error));
            }
        };
        let (status, headers, body) = RawResponse::deconstruct(answer);
        let number = u16::from(status);
        let location = headers.get_optional_str(&HeaderName::from_static("location"));
        let kind = headers.get_optional_str(&CONTENT_TYPE);
        let quoted = match request.body() {
            Body::Bytes(asked) => without_secrets(asked, status.is_success(), body.as_ref()),
            Body::SeekableStream(_) => None,
        };
        if let Some(between) = Intermediary::page(PLACE, number, location, kind, body.as_ref()) {
            // Its title may be what is quoted.
            let untitled = || Intermediary::page(PLACE, number, location, Some("text/html"), b"");
            let between = quoted.and_then(|_| untitled()).unwrap_or(between);
            return Err(sign_in_error(between));
        }
        if let Some(words) = quoted {
            return Ok(AsyncRawResponse::from_bytes(status, headers, words));
        }
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(body.as_ref()).is_ok();
        Ok(match number {
            429 | 500.. if !is_json => AsyncRawResponse::from_bytes(status, headers, NO_WORDS),
            _ => AsyncRawResponse::from_bytes(status, headers, body),
        })
    }
}

/// What is asked with these is known to nobody but the two who speak.
const SECRETS: [&str; 7] = [
    "client_secret",
    "client_assertion",
    "assertion",
    "refresh_token",
    "device_code",
    "code",
    "code_verifier",
];

/// The platform's words for errors (RFC 6749, RFC 8628) after which something else is done, and
/// before them one that stands for all others.
const KNOWN: [&str; 5] =
    ["invalid_request", "authorization_pending", "slow_down", "expired_token", "invalid_grant"];
/// What the platform's codes begin with.
const AADSTS: &str = "AADSTS";

/// Words in the place of an answer that gives back a secret of what was asked, however it is
/// written; its codes are kept, since they say what to do. `None` for one that does not, and for
/// what is no refusal: a token that is renewed may stay the same.
pub(super) fn without_secrets(asked: &[u8], is_granted: bool, answer: &[u8]) -> Option<Vec<u8>> {
    let json: Option<Value> = serde_json::from_slice(answer).ok();
    if is_granted && json.is_some() {
        return None;
    }
    let mut form = reqwest::Url::parse("http://localhost/").ok()?;
    form.set_query(Some(std::str::from_utf8(asked).ok()?));
    let mut secrets =
        form.query_pairs().filter(|(name, value)| SECRETS.contains(&&**name) && !value.is_empty());
    let raw = String::from_utf8_lossy(answer);
    let mut text = String::new();
    if let Some(json) = &json {
        texts(json, &mut text);
    }
    // As it stands, as JSON has it, and each as an address has it.
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let forms: Vec<String> = [&*raw, text.as_str()]
        .into_iter()
        .flat_map(|text| [text.to_owned(), decoded(text), decoded(&text.replace('+', " "))])
        .collect();
    let is_quoted = |secret: &str| forms.iter().any(|text| text.contains(secret));
    secrets.any(|(_, secret)| is_quoted(&secret)).then(|| {
        let word = json.as_ref().and_then(|json| json["error"].as_str());
        let word = word.filter(|word| KNOWN.contains(word)).unwrap_or(KNOWN[0]);
        let digits = |at: usize| {
            text[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
        };
        let code: Option<u64> = text.find(AADSTS).and_then(|at| digits(at + AADSTS.len()));
        let begin = code.map(|code| format!("{AADSTS}{code}: ")).unwrap_or_default();
        let words = format!("{begin}the answer is not shown, because it quotes a secret");
        let codes: Vec<u64> = code.into_iter().collect();
        serde_json::json!({"error": word, "error_description": words, "error_codes": codes})
            .to_string()
            .into_bytes()
    })
}

/// All texts of a value.
fn texts(value: &Value, into: &mut String) {
    match value {
        Value::String(text) => {
            into.push_str(text);
            into.push('\n');
        }
        Value::Array(values) => values.iter().for_each(|value| texts(value, into)),
        Value::Object(fields) => fields.values().for_each(|value| texts(value, into)),
        _ => {}
    }
}

/// An error of a kind that the library does not try again.
fn sign_in_error(between: Intermediary) -> Error {
    Error::with_error(ErrorKind::Credential, between, "something stands in between")
}
