//! Promises a second reader for mails that shares no code with their writer: Python's email
//! package.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

const READER: &str = r#"
import sys, json, base64, email, email.policy, email.header, email.utils
# Letters outside ASCII stand in the headers of SMTPUTF8 mails alone, as they are (RFC 6532).
raw = sys.stdin.buffer.read().decode("utf-8")
message = email.message_from_string(raw, policy=email.policy.default)
# The new parser of Python 3.11 puts a blank between folded encoded words in a name; the old
# one drops it, as RFC 2047 says.
old = email.message_from_string(raw)
plain = lambda text: str(email.header.make_header(email.header.decode_header(text)))
pairs = lambda name: [[plain(n), a] for n, a in email.utils.getaddresses(old.get_all(name))]
usual = "from to subject date message-id mime-version content-type auto-submitted x-auto-response-suppress"
trace = "return-path delivered-to received"
known = (usual + " " + trace).split()
parts = [p for p in message.walk() if not p.is_multipart()]
defects = [str(d) for p in message.walk() for d in p.defects]
defects += [str(d) for n in ("from", "to", "subject", "date") for d in message[n].defects]
print(json.dumps({
    "from": pairs("from"), "to": pairs("to"), "subject": message["subject"],
    "date": message["date"].datetime.isoformat(), "auto": message["auto-submitted"],
    "id": message["message-id"],
    "others": [k for k in message.keys() if k.lower() not in known],
    "defects": defects,
    "parts": [{
        "kind": p.get_content_type(), "charset": p.get_content_charset(), "name": p.get_filename(),
        "text": p.get_content() if p.get_content_maintype() == "text" else None,
        "base64": base64.b64encode(p.get_payload(decode=True)).decode() if p.get_filename() else None,
    } for p in parts],
}))
"#;

/// What Python's email package makes of a message; nothing, with a word why, where there is
/// no Python.
#[expect(clippy::print_stdout, reason = "says why a test was skipped")]
pub(crate) fn read_by_python(message: &[u8]) -> Option<Value> {
    let mut command = Command::new("python3");
    command.args(["-c", READER]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("skipped: there is no python3 to read the message with");
        return None;
    };
    child.stdin.take().expect("a pipe").write_all(message).expect("written");
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success(), "python3 could not read the message");
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}
