//! Promises the directory's queries as Graph takes them: the few filters tapwave uses, pages
//! joined by `nextLink`, and Graph's refusals for the rest.

use serde_json::{Value, json};

use super::answer::SimulatedRefusal;
use super::options::{NextLink, Options};
use super::target::{RequestTarget, encode};
use tapwave_core::limits;

/// `property in ('a','b')` or `property eq 'a'`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) property: String,
    pub(super) values: Vec<String>,
}

impl Filter {
    pub(super) fn parse(text: &str) -> Result<Self, SimulatedRefusal> {
        let text = text.trim();
        let wrong =
            || SimulatedRefusal::new(400, "BadRequest", format!("Invalid filter clause: {text}"));
        let (property, rest) = text.split_once(' ').ok_or_else(wrong)?;
        let rest = rest.trim_start();
        let (values, rest) = match rest.split_once(' ').ok_or_else(wrong)? {
            ("eq", rest) => {
                let (value, rest) = literal(rest.trim_start()).ok_or_else(wrong)?;
                (vec![value], rest)
            }
            ("in", rest) => list(rest.trim_start()).ok_or_else(wrong)?,
            _ => return Err(wrong()),
        };
        if !rest.trim().is_empty() {
            return Err(wrong());
        }
        if values.len() > limits::USERS_PER_FILTER {
            let message = format!(
                "Too many child clauses specified in search filter expression containing 'OR' \
                 operators: {}. Max allowed: {}.",
                values.len(),
                limits::USERS_PER_FILTER
            );
            return Err(SimulatedRefusal::new(400, "Request_UnsupportedQuery", message));
        }
        Ok(Self { property: property.to_owned(), values })
    }
}

/// A quoted text, its doubled quotes halved, and what follows.
fn literal(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('\'')?;
    let mut value = String::new();
    loop {
        let (head, tail) = rest.split_once('\'')?;
        value.push_str(head);
        match tail.strip_prefix('\'') {
            Some(tail) => {
                value.push('\'');
                rest = tail;
            }
            None => return Some((value, tail)),
        }
    }
}

fn list(text: &str) -> Option<(Vec<String>, &str)> {
    let mut rest = text.strip_prefix('(')?;
    let mut values = Vec::new();
    loop {
        let (value, tail) = literal(rest.trim_start())?;
        values.push(value);
        let tail = tail.trim_start();
        if let Some(tail) = tail.strip_prefix(')') {
            return Some((values, tail));
        }
        rest = tail.strip_prefix(',')?;
    }
}

/// One object of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    Person(usize),
    Group(usize),
}

/// Listings under way: what the first page found is what the later pages show.
#[derive(Debug, Default)]
pub(super) struct Chains {
    next: u64,
    open: std::collections::VecDeque<(u64, Vec<Item>)>,
}

/// A page: its items, the total, and the token of the next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListingPage {
    pub(super) items: Vec<Item>,
    total: usize,
    next: Option<String>,
}

impl Chains {
    /// The page a target asks for. `find` makes the listing when it asks for the first.
    pub(super) fn page(
        &mut self,
        options: &Options,
        target: &RequestTarget,
        find: impl FnOnce() -> Vec<Item>,
    ) -> Result<ListingPage, SimulatedRefusal> {
        let size = page_size(options, target)?;
        let (chain, from, was_empty) = match target.option("$skiptoken") {
            Some(token) => read_token(token)?,
            None => (self.begin(find()), 0, false),
        };
        let items = self.open.iter().find(|(id, _)| *id == chain).map(|(_, items)| items);
        let items = items.ok_or_else(expired)?;
        if options.empty_pages && !was_empty {
            let next = Some(format!("{chain}.{from}.e"));
            return Ok(ListingPage { items: Vec::new(), total: items.len(), next });
        }
        let end = items.len().min(from.saturating_add(size));
        let next = (end < items.len()).then(|| format!("{chain}.{end}.p"));
        let shown = items.get(from..end).unwrap_or_default().to_vec();
        Ok(ListingPage { items: shown, total: items.len(), next })
    }

    fn begin(&mut self, items: Vec<Item>) -> u64 {
        self.next += 1;
        self.open.push_back((self.next, items));
        if self.open.len() > limits::REHEARSED_LISTINGS {
            self.open.pop_front();
        }
        self.next
    }
}

fn page_size(options: &Options, target: &RequestTarget) -> Result<usize, SimulatedRefusal> {
    let asked = match target.option("$top") {
        // Graph's own page is 100 objects when nothing is asked.
        None => 100,
        Some(text) => text
            .parse()
            .ok()
            .filter(|top| (1..=limits::PAGE_SIZE).contains(top))
            .ok_or_else(|| {
                let message = format!(
                    "Invalid page size specified: '{text}'. Must be between 1 and 999 inclusive."
                );
                SimulatedRefusal::new(400, "Request_UnsupportedQuery", message)
            })?,
    };
    Ok(asked.min(options.page_size.max(1)))
}

fn read_token(token: &str) -> Result<(u64, usize, bool), SimulatedRefusal> {
    let mut parts = token.split('.');
    let chain = parts.next().and_then(|part| part.parse().ok());
    let from = parts.next().and_then(|part| part.parse().ok());
    match (chain, from, parts.next(), parts.next()) {
        (Some(chain), Some(from), Some(kind @ ("e" | "p")), None) => Ok((chain, from, kind == "e")),
        _ => Err(expired()),
    }
}

fn expired() -> SimulatedRefusal {
    let message =
        "The specified page token value has expired and can no longer be included in your request.";
    SimulatedRefusal::new(400, "Directory_ExpiredPageToken", message)
}

impl ListingPage {
    /// The collection around the page's objects.
    pub(super) fn shown(
        &self,
        options: &Options,
        target: &RequestTarget,
        set: &str,
        value: Value,
    ) -> Value {
        let mut shown = json!({"@odata.context": format!("{}/$metadata#{set}", options.base)});
        shown["value"] = value;
        if target.option("$count") == Some("true") && target.option("$skiptoken").is_none() {
            shown["@odata.count"] = json!(self.total);
        }
        if let Some(token) = &self.next {
            shown["@odata.nextLink"] = Value::from(next_link(options, target, token));
        }
        shown
    }
}

pub(super) fn next_link(options: &Options, target: &RequestTarget, token: &str) -> String {
    let base = match &options.next_link {
        NextLink::Home => &options.base,
        NextLink::Elsewhere(base) => base,
    };
    let path: Vec<String> = target.segments.iter().map(|segment| encode_segment(segment)).collect();
    let mut link = format!("{base}/{}?", path.join("/"));
    for name in ["$count", "$select", "$top", "$filter"] {
        if let Some(value) = target.option(name) {
            link = link + name + "=" + &encode(value) + "&";
        }
    }
    link + "$skiptoken=" + token
}

/// A segment with the dots and dashes of ids and type names as they are.
fn encode_segment(segment: &str) -> String {
    if segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._$".contains(&b)) {
        return segment.to_owned();
    }
    encode(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_quotes_inside_quotes() {
        let filter =
            Filter::parse("userPrincipalName in ('o''neil@c.d' , 'x,y)@c.d')").expect("one");
        assert_eq!(filter.property, "userPrincipalName");
        assert_eq!(filter.values, ["o'neil@c.d", "x,y)@c.d"]);
        let filter = Filter::parse("displayName eq 'it''s'").expect("one");
        assert_eq!(filter.values, ["it's"]);
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        for bad in [
            "",
            "x",
            "x eq y",
            "x eq 'o'neil'",
            "x in ()",
            "x in ('a'",
            "x in ('a' 'b')",
            "x gt 'a'",
            "x eq 'a' or true",
        ] {
            assert_eq!(Filter::parse(bad).map_err(|refusal| refusal.status), Err(400), "{bad}");
        }
        let many = format!("id in ({})", vec!["'a'"; 16].join(","));
        let refusal = Filter::parse(&many).expect_err("too many");
        assert!(refusal.message.contains("Max allowed: 15"), "{}", refusal.message);
    }

    fn walk(options: &Options, count: usize) -> (Vec<Item>, usize) {
        let mut chains = Chains::default();
        let mut target = RequestTarget::parse("/users?$top=7&$count=true").expect("a target");
        let (mut all, mut pages) = (Vec::new(), 0);
        loop {
            let found = || (0..count).map(Item::Person).collect();
            let page = chains.page(options, &target, found).expect("a page");
            all.extend(&page.items);
            pages += 1;
            let shown = page.shown(options, &target, "users", json!([]));
            assert_eq!(shown["@odata.count"].is_u64(), pages == 1);
            let Some(next) = shown["@odata.nextLink"].as_str() else { return (all, pages) };
            target =
                RequestTarget::parse(next.strip_prefix(&options.base).expect("home")).expect("one");
        }
    }

    #[test]
    fn pages_show_each_object_once() {
        let all = |count| (0..count).map(Item::Person).collect::<Vec<_>>();
        let options = Options::default();
        assert_eq!(walk(&options, 20), (all(20), 3));
        assert_eq!(walk(&options, 21), (all(21), 3));
        assert_eq!(walk(&options, 0), (all(0), 1));
        let nasty = Options { empty_pages: true, page_size: 5, ..options };
        assert_eq!(walk(&nasty, 20), (all(20), 8));
    }

    #[test]
    fn an_old_page_token_has_expired() {
        let (options, mut chains) = (Options::default(), Chains::default());
        for token in ["9.0.p", "x", "1.0", "1.0.p.p"] {
            let target =
                RequestTarget::parse(&format!("/users?$skiptoken={token}")).expect("a target");
            let refusal = chains.page(&options, &target, Vec::new).expect_err("a refusal");
            assert_eq!(refusal.code, "Directory_ExpiredPageToken");
        }
    }
}
