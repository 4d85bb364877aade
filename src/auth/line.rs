//! Promises that the identity library hears the sign-in address alone: what stands in between is
//! told as such and not tried again, and an outage is one by its status, whatever it is written
//! in.

use azure_core::Result;
use azure_core::error::{Error, ErrorKind};
use azure_core::http::headers::{CONTENT_TYPE, HeaderName};
use azure_core::http::{AsyncRawResponse, HttpClient, RawResponse, Request};

use super::explain::PLACE;
use crate::graph::between::Between;
use crate::graph::http::Network;

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
                let found = Between::of_error(PLACE, request.url(), &error, &self.network).await;
                return Err(found.map_or(error, told));
            }
        };
        let (status, headers, body) = RawResponse::deconstruct(answer);
        let number = u16::from(status);
        let location = headers.get_optional_str(&HeaderName::from_static("location"));
        let kind = headers.get_optional_str(&CONTENT_TYPE);
        if let Some(between) = Between::page(PLACE, number, location, kind, body.as_ref()) {
            return Err(told(between));
        }
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(body.as_ref()).is_ok();
        Ok(match number {
            429 | 500.. if !is_json => AsyncRawResponse::from_bytes(status, headers, NO_WORDS),
            _ => AsyncRawResponse::from_bytes(status, headers, body),
        })
    }
}

/// An error of a kind that the library does not try again.
fn told(between: Between) -> Error {
    Error::with_error(ErrorKind::Credential, between, "something stands in between")
}
