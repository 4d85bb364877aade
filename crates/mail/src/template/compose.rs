//! Promises the same bytes whenever the same draft is composed: Message-ID and date come from the
//! caller, boundaries from the Message-ID, and encodings are fixed. Must never address more than
//! one person, nor let a value end a header's line.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use lettre::message::header::{
    ContentTransferEncoding, ContentType, HeaderName, HeaderValue as RawHeader,
};
use lettre::message::{Attachment, Body, MultiPart, SinglePart};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::mailbox::Mailbox;
use super::redact::Redactor;
use super::templates::Letter;
use tapwave_core::shown;

/// Everything that a mail is composed from; stored before it is first sent.
pub struct MailDraft<'a> {
    pub from: &'a Mailbox,
    pub reply_to: Option<&'a Mailbox>,
    /// The only recipient: there is no Cc or Bcc.
    pub to: &'a Mailbox,
    pub message_id: &'a MessageId,
    /// Cut to seconds.
    pub date: Timestamp,
    pub letter: &'a Letter,
}

/// The format that a transport takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An Internet message (RFC 5322), for SMTP.
    Mime,
    /// The body of Graph's `sendMail`, with the HTML part alone. Exchange sets the date and the
    /// Message-ID; ours goes into `X-Tapwave-Message-Id`.
    GraphJson,
}

/// A mail, ready to be sent, more than once if need be. May hold a code: it has no `Debug`, and is
/// wiped when dropped.
pub struct Mail {
    form: Form,
    from: String,
    to: String,
    bytes: Zeroizing<Vec<u8>>,
    digest: String,
    redactor: Redactor,
}

/// A Message-ID, with its angle brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageId(Box<str>);

/// The text is not `<left@right>` in visible ASCII characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Message-ID is malformed; compose the mail anew")]
pub struct NotMessageId;

/// Why a mail could not be composed. Never quotes its text.
#[derive(Debug, thiserror::Error)]
pub enum NotComposed {
    #[error("failed to compose the mail: {0}; look at its sender and recipient")]
    Mime(#[source] lettre::error::Error),
    #[error("failed to encode a part of the mail; look at its template")]
    Part,
    #[error("failed to compose the mail for Graph; look at its sender and recipient")]
    Json,
}

pub fn compose(draft: &MailDraft<'_>, form: Form) -> Result<Mail, NotComposed> {
    let bytes = match form {
        Form::Mime => mime(draft)?,
        Form::GraphJson => json(draft)?,
    };
    let digest = shown::hex(&Sha256::digest(&*bytes));
    let (from, to) = (draft.from.address().to_owned(), draft.to.address().to_owned());
    Ok(Mail { form, from, to, bytes, digest, redactor: draft.letter.redactor.clone() })
}

impl Mail {
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// The sender's address: SMTP's envelope sender, Graph's mailbox.
    #[must_use]
    pub fn from(&self) -> &str {
        &self.from
    }

    /// The only address on the envelope.
    #[must_use]
    pub fn to(&self) -> &str {
        &self.to
    }

    /// What is sent. May hold a code.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Removes every piece of this mail's code, which a relay may quote in its answer.
    pub(crate) fn redact(&self, answer: &str) -> String {
        self.redactor.redact(answer)
    }

    /// SHA-256 of the bytes in lower-case hex. The bytes hold a random Message-ID, so that without
    /// the ledger the digest tells nothing of the code. With it, the digest is as good as a hash of
    /// the code, which is why ledgers stay private.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

impl MessageId {
    /// An id in the sender's domain from a random `id`.
    #[must_use]
    pub fn new(id: Uuid, from: &Mailbox) -> Self {
        Self(format!("<{}@{}>", id.simple(), from.domain()).into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A boundary that no other mail has. Encoded text cannot contain it: in quoted-printable `=` is
    /// followed by hexadecimal digits, in Base64 by nothing.
    fn boundary(&self, part: &str) -> String {
        let digest = Sha256::digest(self.0.as_bytes());
        format!("=_tapwave_{part}_{}", shown::hex(&digest[..16]))
    }
}

impl FromStr for MessageId {
    type Err = NotMessageId;

    fn from_str(text: &str) -> Result<Self, NotMessageId> {
        let inner = text.strip_prefix('<').and_then(|text| text.strip_suffix('>'));
        let (left, right) = inner.and_then(|inner| inner.split_once('@')).ok_or(NotMessageId)?;
        let good = |side: &str| {
            let visible = |b: u8| b.is_ascii_graphic() && !b"<>@\"\\".contains(&b);
            !side.is_empty() && side.bytes().all(visible)
        };
        // RFC 5322 allows lines of 998 characters; mail systems want far shorter ids.
        if text.len() > 512 || !good(left) || !good(right) {
            return Err(NotMessageId);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for MessageId {
    type Error = NotMessageId;

    fn try_from(text: String) -> Result<Self, NotMessageId> {
        text.parse()
    }
}

impl From<MessageId> for String {
    fn from(id: MessageId) -> Self {
        id.0.into()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn mime(draft: &MailDraft<'_>) -> Result<Zeroizing<Vec<u8>>, NotComposed> {
    let mut builder = lettre::Message::builder()
        .from(draft.from.as_lettre().clone())
        .to(draft.to.as_lettre().clone())
        .subject(draft.letter.subject())
        .date(SystemTime::from(draft.date))
        .message_id(Some(draft.message_id.to_string()))
        // No automatic replies: RFC 3834, and the header that Exchange has for it.
        .raw_header(header("Auto-Submitted", "auto-generated"))
        .raw_header(header("X-Auto-Response-Suppress", "All"));
    if let Some(reply_to) = draft.reply_to {
        builder = builder.reply_to(reply_to.as_lettre().clone());
    }
    let alternative = MultiPart::alternative()
        .boundary(draft.message_id.boundary("alternative"))
        .singlepart(text_part(draft.letter.text(), ContentType::TEXT_PLAIN)?)
        .singlepart(text_part(draft.letter.html(), ContentType::TEXT_HTML)?);
    let whole = match draft.letter.attachment() {
        None => alternative,
        Some((name, file)) => MultiPart::mixed()
            .boundary(draft.message_id.boundary("mixed"))
            .multipart(alternative)
            .singlepart(attachment_part(name, file)?),
    };
    let message = builder.multipart(whole).map_err(NotComposed::Mime)?;
    Ok(Zeroizing::new(message.formatted()))
}

fn header(name: &'static str, value: &str) -> RawHeader {
    RawHeader::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

/// Always quoted-printable: seven bits, no long lines, still readable.
fn text_part(text: &str, kind: ContentType) -> Result<SinglePart, NotComposed> {
    let body = Body::new_with_encoding(text.to_owned(), ContentTransferEncoding::QuotedPrintable)
        .map_err(|_| NotComposed::Part)?;
    Ok(SinglePart::builder().header(kind).body(body))
}

fn attachment_part(name: &str, file: &[u8]) -> Result<SinglePart, NotComposed> {
    let body = Body::new_with_encoding(file.to_vec(), ContentTransferEncoding::Base64)
        .map_err(|_| NotComposed::Part)?;
    let kind = ContentType::parse("application/octet-stream").map_err(|_| NotComposed::Part)?;
    Ok(Attachment::new(name.to_owned()).body(body, kind))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SendMail<'a> {
    message: GraphMessage<'a>,
    /// False: a copy of the code would stay in the sender's mailbox.
    save_to_sent_items: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GraphMessage<'a> {
    subject: &'a str,
    body: GraphBody<'a>,
    from: GraphRecipient<'a>,
    to_recipients: [GraphRecipient<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<[GraphRecipient<'a>; 1]>,
    internet_message_headers: [GraphHeader<'a>; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    attachments: Option<[GraphAttachment<'a>; 1]>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GraphBody<'a> {
    content_type: &'a str,
    content: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GraphRecipient<'a> {
    email_address: GraphAddress<'a>,
}

#[derive(Serialize)]
struct GraphAddress<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    address: &'a str,
}

#[derive(Serialize)]
struct GraphHeader<'a> {
    name: &'a str,
    value: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GraphAttachment<'a> {
    #[serde(rename = "@odata.type")]
    kind: &'a str,
    name: &'a str,
    content_type: &'a str,
    content_bytes: String,
}

fn json(draft: &MailDraft<'_>) -> Result<Zeroizing<Vec<u8>>, NotComposed> {
    let message = GraphMessage {
        subject: draft.letter.subject(),
        body: GraphBody { content_type: "html", content: draft.letter.html() },
        from: recipient(draft.from),
        to_recipients: [recipient(draft.to)],
        reply_to: draft.reply_to.map(|reply_to| [recipient(reply_to)]),
        // Graph takes only headers that begin with X here (documented): no Auto-Submitted.
        internet_message_headers: [
            GraphHeader { name: "X-Auto-Response-Suppress", value: "All" },
            GraphHeader { name: "X-Tapwave-Message-Id", value: draft.message_id.as_str() },
        ],
        attachments: draft.letter.attachment().map(|(name, file)| {
            [GraphAttachment {
                kind: "#microsoft.graph.fileAttachment",
                name,
                content_type: "application/octet-stream",
                content_bytes: STANDARD.encode(file),
            }]
        }),
    };
    let whole = SendMail { message, save_to_sent_items: false };
    // Counted first: a buffer that grows leaves a copy behind.
    let mut length = ByteCounter(0);
    serde_json::to_writer(&mut length, &whole).map_err(|_| NotComposed::Json)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *bytes, &whole).map_err(|_| NotComposed::Json)?;
    Ok(bytes)
}

fn recipient(mailbox: &Mailbox) -> GraphRecipient<'_> {
    GraphRecipient {
        email_address: GraphAddress { name: mailbox.name(), address: mailbox.address() },
    }
}

struct ByteCounter(usize);

impl std::io::Write for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
