//! Promises that a template which cannot be rendered is found before any pass exists, and
//! that no template but one of mode `pass` ever sees a code. Must never read a file after
//! [`Templates::load`], nor quote a rendered value in an error once a code is in play.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Zoned;
use minijinja::value::{Object, ObjectRepr, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use zeroize::Zeroizing;

use super::builtin;
use super::censor::Censor;
use super::facts::{Facts, NamedPerson};
use super::mailbox::one_line;
use super::moments;
use tapwave_core::clock;
use tapwave_core::limits;
use tapwave_seal::{OpenedRow, Pass};

/// What stands where the code will, in a check or a preview.
const DUMMY: &str = "EXAMPLE-pass";
/// The last language of every chain.
const LAST: &str = "en";
/// The names that a template may use; `code` comes on top in mode `pass`, `file` in `sealed`.
const KNOWN: [&str; 12] = [
    "user",
    "manager",
    "columns",
    "start",
    "end",
    "zone",
    "lifetime",
    "lifetime_minutes",
    "one_time",
    "support",
    "holder",
    "lang",
];
/// What minijinja itself brings.
const FUNCTIONS: [&str; 6] = ["range", "dict", "namespace", "super", "loop", "caller"];
/// The three files of a letter.
const FILES: [&str; 3] = ["subject.txt", "letter.txt", "letter.html"];

/// What a letter carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The code itself.
    Pass,
    /// An age file that only its reader can open; no code.
    Sealed,
    /// The news that a pass is ready and who has it; no code.
    Notice,
}

impl Mode {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Pass, Self::Sealed, Self::Notice];

    /// The word for it: `--body`'s, and the folder's in a folder of templates.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Sealed => "sealed",
            Self::Notice => "notice",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What goes into one letter besides its facts. Decides the mode.
pub enum LetterContent<'a> {
    /// A pass that has just been issued.
    Pass(&'a Pass),
    /// A pass out of a sealed copy.
    Opened(&'a OpenedRow),
    /// The age file for the reader, armoured or not.
    Sealed(&'a [u8]),
    /// Nothing.
    Notice,
}

impl LetterContent<'_> {
    /// The mode that it asks for.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        match self {
            Self::Pass(_) | Self::Opened(_) => Mode::Pass,
            Self::Sealed(_) => Mode::Sealed,
            Self::Notice => Mode::Notice,
        }
    }
}

/// One rendered letter. May hold a code: it has no `Debug`, and is wiped when dropped.
pub struct Letter {
    locale: String,
    subject: String,
    text: Zeroizing<String>,
    html: Zeroizing<String>,
    attachment: Option<(String, Vec<u8>)>,
    pub(super) censor: Censor,
}

impl Letter {
    /// The language it is written in, which is not always the one asked for.
    #[must_use]
    pub fn locale(&self) -> &str {
        &self.locale
    }

    /// The subject: one line, never a code.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The text part.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The HTML part, a whole document.
    #[must_use]
    pub fn html(&self) -> &str {
        &self.html
    }

    /// The attached file's name and bytes.
    #[must_use]
    pub fn attachment(&self) -> Option<(&str, &[u8])> {
        self.attachment.as_ref().map(|(name, file)| (name.as_str(), file.as_slice()))
    }
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The system could not give it.
    #[error("failed to read the template {path}: {why}; check that it is a file you may read")]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// Over [`limits::MAX_TEMPLATE_BYTES`].
    #[error(
        "the template {path} is larger than {max} bytes; shorten it",
        max = limits::MAX_TEMPLATE_BYTES
    )]
    TooLarge { path: PathBuf },
    /// A file that no letter is made of.
    #[error(
        "the template folder holds {path}, which no letter is made of; name templates \
         LOCALE/MODE/FILE, such as nl/pass/letter.txt, with the modes pass, sealed, notice and \
         the files subject.txt, letter.txt, letter.html"
    )]
    Stray { path: PathBuf },
    /// It cannot be parsed or rendered.
    #[error("the template {path}, line {line}: {why}")]
    Faulty {
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong and what to do.
        why: String,
    },
    /// A name that letters do not have.
    #[error(
        "the template {path}, line {line}: {{{{ {name} }}}} is not known; use one of {known}, or \
         columns[\"…\"] for a column of the wave",
        known = KNOWN.join(", ")
    )]
    Unknown {
        path: PathBuf,
        /// Counted from 1; where the name stands first.
        line: usize,
        /// As the template writes it.
        name: String,
    },
    /// `code` where none may stand.
    #[error(
        "the template {path}, line {line}: it names the code, which stands in the letters of mode \
         pass alone and never in a subject; remove it"
    )]
    NamesCode {
        path: PathBuf,
        /// Counted from 1; where it stands first.
        line: usize,
    },
    /// Some of the three files, but not all.
    #[error(
        "the templates for {locale}, mode {mode}, lack {file}; write it, for a letter is never put \
         together out of two languages"
    )]
    Incomplete {
        locale: String,
        mode: Mode,
        /// What is not there.
        file: &'static str,
    },
    /// Rendered to nothing.
    #[error("the template {path} gives an empty text; write one")]
    Empty { path: PathBuf },
    /// A letter that failed for this one person. Says no more, because a code is in play.
    #[error(
        "the template {path}, line {line}: cannot be rendered for this row; run tapwave check \
         with the same template"
    )]
    Failed {
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

/// Every template, read and parsed.
pub struct Templates {
    environment: Environment<'static>,
    names: BTreeSet<String>,
    /// Names that come from one's own folder, and that folder.
    own: BTreeMap<String, PathBuf>,
}

impl Templates {
    /// The built-in ones, with those of one's own folder laid over them. The folder is read
    /// now and never again.
    ///
    /// # Errors
    /// [`TemplateError`]: unreadable, too large, stray or unparsable files.
    pub fn load(dir: Option<&Path>) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(limits::TEMPLATE_FUEL));
        environment.set_auto_escape_callback(|name| {
            let html = Path::new(name).extension().is_some_and(|end| end == "html");
            if html { AutoEscape::Html } else { AutoEscape::None }
        });
        let names = BTreeSet::new();
        let mut templates = Self { environment, names, own: BTreeMap::new() };
        for (name, source) in builtin::TEMPLATES {
            templates.add(name.to_owned(), source.to_owned())?;
        }
        for (name, path) in dir.map(found).transpose()?.unwrap_or_default() {
            let source = read(&path)?;
            templates.own.insert(name.clone(), path);
            templates.add(name, source)?;
        }
        Ok(templates)
    }

    /// Everything that is wrong with the letters of these modes for readers of these
    /// locales, found by rendering each with a dummy code. Empty if they are sound for these
    /// facts: a column that another row lacks cannot be, for all rows have all columns.
    #[must_use]
    pub fn check(&self, modes: &[Mode], locales: &[&str], facts: &Facts) -> Vec<TemplateError> {
        let mut wrong = Vec::new();
        for mode in modes {
            for locale in locales {
                let found = match self.chosen(*mode, locale) {
                    Err(error) => vec![error],
                    Ok(files) => match self.misnamed(*mode, &files) {
                        named if named.is_empty() => {
                            self.preview(*mode, locale, facts).err().into_iter().collect()
                        }
                        named => named,
                    },
                };
                wrong.extend(found);
            }
        }
        let mut seen = BTreeSet::new();
        wrong.retain(|error| seen.insert(error.to_string()));
        wrong
    }

    /// Whether a letter of one of these modes names a value, such as `manager`.
    #[must_use]
    pub fn name(&self, modes: &[Mode], value: &str) -> bool {
        let folders: Vec<String> = modes.iter().map(|mode| format!("/{mode}/")).collect();
        self.names
            .iter()
            .filter(|name| {
                *name == builtin::LAYOUT || folders.iter().any(|mode| name.contains(mode))
            })
            .filter_map(|name| self.environment.get_template(name).ok())
            .any(|template| template.undeclared_variables(false).contains(value))
    }

    /// A letter with a dummy code or a dummy file, to look at.
    pub fn preview(
        &self,
        mode: Mode,
        locale: &str,
        facts: &Facts,
    ) -> Result<Letter, TemplateError> {
        let code = (mode == Mode::Pass).then_some(DUMMY);
        let file: Option<&[u8]> = (mode == Mode::Sealed).then_some(b"example");
        self.written(mode, locale, facts, code, file)
    }

    /// The letter for one person. The only caller of the pass's door.
    ///
    /// # Errors
    /// [`TemplateError`]; with a code in play, one that quotes nothing.
    pub fn render(
        &self,
        content: &LetterContent<'_>,
        locale: &str,
        facts: &Facts,
    ) -> Result<Letter, TemplateError> {
        let (code, file) = match content {
            LetterContent::Pass(pass) => (Some(pass.reveal()), None),
            LetterContent::Opened(row) => (Some(row.reveal()), None),
            LetterContent::Sealed(file) => (None, Some(*file)),
            LetterContent::Notice => (None, None),
        };
        self.written(content.mode(), locale, facts, code, file).map_err(|error| match error {
            TemplateError::Faulty { path, line, .. } if code.is_some() => {
                TemplateError::Failed { path, line }
            }
            error => error,
        })
    }

    fn written(
        &self,
        mode: Mode,
        locale: &str,
        facts: &Facts,
        code: Option<&str>,
        file: Option<&[u8]>,
    ) -> Result<Letter, TemplateError> {
        let files = self.chosen(mode, locale)?;
        let attachment = file.map(|file| (file_name(facts), file.to_vec()));
        let name = attachment.as_ref().map(|(name, _)| name.as_str());
        let [subject, text, html] = &files.names;
        // The subject's values hold no code, so that none can come into a header.
        let subject = self.filled(subject, &values(&files, facts, None, name))?;
        let all = values(&files, facts, code, name);
        let (text, html) = (self.filled(text, &all)?, self.filled(html, &all)?);
        let subject = one_line(&subject, limits::MAX_SUBJECT_CHARS);
        if subject.is_empty() {
            return Err(TemplateError::Empty { path: self.path(&files.names[0]) });
        }
        let censor = code.map_or_else(Censor::default, Censor::of);
        Ok(Letter { locale: files.locale, subject, text, html, attachment, censor })
    }

    /// Renders one template into one buffer that never moves.
    fn filled(&self, name: &str, values: &Value) -> Result<Zeroizing<String>, TemplateError> {
        let template = self.environment.get_template(name).map_err(|e| self.faulty(name, &e))?;
        let mut page = RenderBuffer(Zeroizing::new(Vec::with_capacity(limits::MAX_LETTER_BYTES)));
        template
            .render_captured_to(values.clone(), &mut page)
            .map_err(|e| self.faulty(name, &e))?;
        let text = std::str::from_utf8(&page.0).unwrap_or_default();
        // Characters that no mail may carry as they are.
        let clean = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
        let mut kept = Zeroizing::new(String::with_capacity(text.len()));
        kept.extend(text.chars().filter(|c| clean(*c)));
        if kept.trim().is_empty() {
            return Err(TemplateError::Empty { path: self.path(name) });
        }
        Ok(kept)
    }

    /// The three files for a reader: of the locale, else of its language, else English. Two
    /// languages are never mixed.
    fn chosen(&self, mode: Mode, locale: &str) -> Result<Chosen, TemplateError> {
        let wanted = locale.trim().replace('_', "-");
        let chain = truncations(&wanted);
        for group in [chain, vec![LAST.to_owned()]] {
            let mut language = None;
            let mut pick = |file: &str| {
                group.iter().find_map(|tag| {
                    let name = self.named(&format!("{tag}/{mode}/{file}"))?;
                    language
                        .get_or_insert_with(|| name.split('/').next().unwrap_or(tag).to_owned());
                    Some(name.to_owned())
                })
            };
            let picked = FILES.map(&mut pick);
            let Some(language) = language else { continue };
            let missing = picked.iter().position(Option::is_none);
            if let Some(at) = missing {
                let file = FILES[at];
                return Err(TemplateError::Incomplete { locale: language, mode, file });
            }
            return Ok(Chosen { locale: language, names: picked.map(Option::unwrap_or_default) });
        }
        Err(TemplateError::Incomplete { locale: LAST.to_owned(), mode, file: FILES[0] })
    }

    /// The template of this name, in whatever case the folder writes it.
    fn named(&self, name: &str) -> Option<&str> {
        let exact = self.names.get(name).map(String::as_str);
        exact.or_else(|| {
            self.names.iter().find(|one| one.eq_ignore_ascii_case(name)).map(String::as_str)
        })
    }

    /// Names in the templates that letters do not have, whether or not rendering meets them.
    fn misnamed(&self, mode: Mode, files: &Chosen) -> Vec<TemplateError> {
        let mut wrong = Vec::new();
        for name in files.names.iter().map(String::as_str).chain([builtin::LAYOUT]) {
            let Ok(template) = self.environment.get_template(name) else { continue };
            let path = self.path(name);
            let line = |word: &str| line_of(template.source(), word);
            let mut words: Vec<_> = template.undeclared_variables(false).into_iter().collect();
            words.sort();
            for word in words {
                let codeless = mode != Mode::Pass || name.ends_with(FILES[0]);
                let known = KNOWN.contains(&&*word)
                    || FUNCTIONS.contains(&&*word)
                    || (word == "code" && !codeless)
                    || (word == "file" && mode == Mode::Sealed);
                if word == "code" && codeless {
                    wrong.push(TemplateError::NamesCode { path: path.clone(), line: line(&word) });
                } else if !known {
                    let line = line(&word);
                    wrong.push(TemplateError::Unknown { path: path.clone(), line, name: word });
                }
            }
        }
        wrong
    }

    fn add(&mut self, name: String, source: String) -> Result<(), TemplateError> {
        self.environment
            .add_template_owned(name.clone(), source)
            .map_err(|error| self.faulty(&name, &error))?;
        self.names.insert(name);
        Ok(())
    }

    /// The innermost error's own place, which may be the page around the letter.
    fn faulty(&self, name: &str, error: &minijinja::Error) -> TemplateError {
        let name = error.name().unwrap_or(name);
        let why = match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => match error.kind() {
                minijinja::ErrorKind::UndefinedError => "a value is not there; check its name, \
                     and ask with {% if … %} for what may be missing"
                    .to_owned(),
                kind => kind.to_string(),
            },
        };
        let why = one_line(&why, limits::MAX_MESSAGE_BYTES);
        TemplateError::Faulty { path: self.path(name), line: error.line().unwrap_or(1), why }
    }

    /// Where a template of this name lies, for people.
    fn path(&self, name: &str) -> PathBuf {
        self.own.get(name).cloned().unwrap_or_else(|| Path::new("built-in").join(name))
    }
}

/// The files that were chosen for a reader.
struct Chosen {
    locale: String,
    names: [String; 3],
}

/// The code, as minijinja may hold it: rendered, never copied into a value of its own.
struct CodeValue(Zeroizing<String>);

impl fmt::Debug for CodeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the code")
    }
}

impl Object for CodeValue {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Takes what is rendered, up to the room that it was given at first.
struct RenderBuffer(Zeroizing<Vec<u8>>);

impl std::io::Write for RenderBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > self.0.capacity() {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a template sees.
fn values(files: &Chosen, facts: &Facts, code: Option<&str>, file: Option<&str>) -> Value {
    let language = files.locale.split('-').next().unwrap_or(LAST);
    let start = facts.start.to_zoned(facts.zone.clone());
    let lifetime = std::time::Duration::from_secs(u64::from(facts.lifetime_minutes) * 60);
    let end = clock::later(facts.start, lifetime).to_zoned(facts.zone.clone());
    let person =
        |one: &NamedPerson| context! { name => one.name.clone(), mail => one.mail.clone() };
    let common = context! {
        user => context! { upn => facts.upn.as_str(), name => facts.shown_name() },
        manager => facts.manager.as_ref().map(person),
        columns => facts.columns.clone(),
        start => moments::moment(language, &start),
        end => moments::moment(language, &end),
        zone => zone_name(&start),
        lifetime => moments::span(language, facts.lifetime_minutes),
        lifetime_minutes => facts.lifetime_minutes,
        one_time => facts.one_time,
        support => facts.support.clone(),
        holder => facts.holder.as_ref().map(person),
        lang => files.locale.clone(),
    };
    // What is left out is undefined, and that is an error wherever it is used.
    match (code, file) {
        (Some(code), _) => {
            let code = Value::from_object(CodeValue(Zeroizing::new(code.to_owned())));
            context! { code => code, ..common }
        }
        (None, Some(file)) => context! { file => file, ..common },
        (None, None) => common,
    }
}

/// The zone as its reader knows it: `Europe/Berlin`, else `UTC+01:00`.
fn zone_name(at: &Zoned) -> String {
    match at.time_zone().iana_name() {
        Some(name) => name.to_owned(),
        None => format!("UTC{}", at.offset()),
    }
}

/// A tag and its shorter ones: `nl-BE`, `nl` (RFC 4647, lookup).
fn truncations(tag: &str) -> Vec<String> {
    let parts: Vec<&str> = tag.split('-').filter(|part| !part.is_empty()).collect();
    (1..=parts.len()).rev().map(|length| parts[..length].join("-")).collect()
}

/// A name for the attached file that every system can save: letters, digits, `.`, `-`, `_`.
fn file_name(facts: &Facts) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' };
    let mut name: String = facts.upn.as_str().chars().map(safe).collect();
    name.truncate(limits::MAX_NAME_BYTES);
    format!("{}.age", name.trim_matches(['.', '-']))
}

/// Where a word first stands between braces, counted from 1.
fn line_of(source: &str, word: &str) -> usize {
    let stands = |line: &str| {
        line.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|one| one == word)
            && (line.contains("{{") || line.contains("{%"))
    };
    source.lines().position(stands).map_or(1, |at| at + 1)
}

/// The templates of a folder, by the name they go under.
fn found(dir: &Path) -> Result<Vec<(String, PathBuf)>, TemplateError> {
    let mut found = Vec::new();
    for (locale, path) in entries(dir)? {
        if locale == builtin::LAYOUT {
            found.push((locale, path));
            continue;
        }
        for (mode, path) in entries(&path)? {
            if !Mode::ALL.iter().any(|one| one.as_str() == mode) {
                return Err(TemplateError::Stray { path });
            }
            for (file, path) in entries(&path)? {
                if !FILES.contains(&&*file) {
                    return Err(TemplateError::Stray { path });
                }
                found.push((format!("{locale}/{mode}/{file}"), path));
            }
        }
    }
    Ok(found)
}

/// What a folder holds, in order, but for what begins with a dot.
fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>, TemplateError> {
    let unreadable = |error: std::io::Error| match error.kind() {
        // Systems do not agree on what a file is that is read as a folder.
        _ if dir.is_file() => TemplateError::Stray { path: dir.to_owned() },
        _ => TemplateError::Unreadable { path: dir.to_owned(), why: error.to_string() },
    };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            return Err(TemplateError::Stray { path });
        };
        if entries.len() >= limits::MAX_TEMPLATE_ENTRIES {
            return Err(TemplateError::Stray { path });
        }
        if !name.starts_with('.') {
            entries.push((name, path));
        }
    }
    entries.sort();
    Ok(entries)
}

fn read(path: &Path) -> Result<String, TemplateError> {
    let unreadable = |error: std::io::Error| TemplateError::Unreadable {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(limits::MAX_TEMPLATE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > limits::MAX_TEMPLATE_BYTES {
        return Err(TemplateError::TooLarge { path: path.to_owned() });
    }
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
