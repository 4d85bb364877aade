//! Promises codes of the length the policy asks for, no two alike in one tenant, in the
//! alphabets a consumer must survive.

use std::collections::HashSet;

use super::options::CodeStyle;

/// Signs that a spreadsheet, CSV, HTML, JSON, a shell, or a template takes for its own.
const HOSTILE: &[u8] = b"+=-@\"',;<>&%\\{}$#`|!";
const PLAIN: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789+*#$%&=@";
const LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789";

/// Codes as code readers of the documentation and of bug reports have met them; each stands
/// once at the head of a nasty tenant's codes.
const SAMPLES: [&str; 6] =
    ["+drkzqAD", "=1+1xQz7", "a\"b,c;d7", "-2+3|cmd", "<b>&amp;", "{{7*7}}\\"];

/// Hands out codes.
#[derive(Debug, Default)]
pub(super) struct Mint {
    given: HashSet<Box<str>>,
}

impl Mint {
    /// A code of `length` bytes that was never given before.
    pub(super) fn strike(
        &mut self,
        rng: &mut fastrand::Rng,
        style: CodeStyle,
        length: usize,
    ) -> String {
        if style == CodeStyle::Nasty
            && let Some(sample) = SAMPLES.get(self.given.len())
            && sample.len() == length
            && self.given.insert((*sample).into())
        {
            return (*sample).to_owned();
        }
        loop {
            let code = draw(rng, style, length);
            if self.given.insert(code.as_str().into()) {
                return code;
            }
        }
    }
}

fn draw(rng: &mut fastrand::Rng, style: CodeStyle, length: usize) -> String {
    let pick = |rng: &mut fastrand::Rng, from: &[u8]| char::from(from[rng.usize(..from.len())]);
    (0..length)
        .map(|place| match style {
            CodeStyle::Plain => pick(rng, PLAIN),
            // The first sign is always hostile, every third thereafter may be.
            CodeStyle::Nasty if place == 0 || place % 3 == 0 && rng.bool() => pick(rng, HOSTILE),
            CodeStyle::Nasty => pick(rng, LETTERS),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_length_and_differ() {
        for style in [CodeStyle::Plain, CodeStyle::Nasty] {
            let mut rng = fastrand::Rng::with_seed(7);
            let mut mint = Mint::default();
            let codes: HashSet<String> =
                (0..5_000).map(|_| mint.strike(&mut rng, style, 8)).collect();
            assert_eq!(codes.len(), 5_000);
            assert!(codes.iter().all(|code| code.len() == 8));
            assert_eq!(codes.contains("+drkzqAD"), style == CodeStyle::Nasty);
            assert_eq!(mint.strike(&mut rng, style, 48).len(), 48);
        }
    }
}
