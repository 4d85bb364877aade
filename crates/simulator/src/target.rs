//! Promises to take a request's target apart as Graph's front door does: path segments and
//! query pairs, percent-decoded once, after they were split.

use percent_encoding::percent_decode_str;

/// A target in pieces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestTarget {
    /// The path's segments below `/v1.0`; `users('x')` counts as `users`, `x`.
    pub(super) segments: Vec<String>,
    query: Vec<(String, String)>,
}

/// A target that is no path of a URL.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the target is not a percent-encoded path below the service's root")]
pub(super) struct Malformed;

impl RequestTarget {
    /// Takes a target apart.
    pub(super) fn parse(target: &str) -> Result<Self, Malformed> {
        // What stands behind a bare `#` never leaves a real client.
        let target = target.split('#').next().unwrap_or_default();
        let visible = |b: u8| b.is_ascii_graphic() && !b"\"<>`{}|\\^".contains(&b);
        if !target.bytes().all(visible) {
            return Err(Malformed);
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.strip_prefix('/').ok_or(Malformed)?;
        let mut segments = Vec::with_capacity(6);
        for piece in path.split('/') {
            let piece = decode(piece)?;
            match piece.strip_suffix("')").and_then(|piece| piece.split_once("('")) {
                Some((set, key)) => segments.extend([set.to_owned(), key.replace("''", "'")]),
                None => segments.push(piece),
            }
        }
        let query = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                // In a query, and there alone, `+` is a space.
                Ok((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?))
            })
            .collect::<Result<_, Malformed>>()?;
        Ok(Self { segments, query })
    }

    /// The value of a query option.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The path's segments, for matching.
    pub(super) fn path(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }
}

/// A path segment or query value, encoded.
pub(super) fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn decode(text: &str) -> Result<String, Malformed> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    percent_decode_str(text).decode_utf8().map(Into::into).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_split_before_it_is_decoded() {
        let target =
            RequestTarget::parse("/users/a%2Fb%23EXT%23%40c.d/manager?$select=id%2Cmail&x=1+2%2B3")
                .expect("a target");
        assert_eq!(target.path(), ["users", "a/b#EXT#@c.d", "manager"]);
        assert_eq!(target.option("$select"), Some("id,mail"));
        assert_eq!(target.option("x"), Some("1 2+3"));
        assert_eq!(target.option("$top"), None);
    }

    #[test]
    fn what_no_client_could_send_is_malformed() {
        for bad in ["users", "/users/a b", "/users/ä", "/users/%FF", "/users/<x>"] {
            assert_eq!(RequestTarget::parse(bad), Err(Malformed), "{bad}");
        }
    }

    #[test]
    fn a_bare_hash_cuts_the_rest_off() {
        let target = RequestTarget::parse("/users/a#EXT#@c.d/manager").expect("a target");
        assert_eq!(target.path(), ["users", "a"]);
    }

    #[test]
    fn the_parenthesised_form_is_a_key() {
        let target = RequestTarget::parse("/users('$o''neil@c.d')/manager").expect("a target");
        assert_eq!(target.path(), ["users", "$o'neil@c.d", "manager"]);
    }
}
