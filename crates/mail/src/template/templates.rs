//! Promises that a template that cannot be rendered is found before any pass exists, and that only
//! templates of mode `pass` get a code. Must never read a file after [`Templates::load`], nor quote
//! a value in an error when there is a code.

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
use super::dates;
use super::facts::{Facts, NamedPerson};
use super::mailbox::header_text;
use super::redact::Redactor;
use tapwave_core::clock;
use tapwave_core::limits;
use tapwave_core::shown::plain;
use tapwave_seal::{OpenedRow, Pass};

/// Stands for the code in a check or a preview.
const DUMMY_CODE: &str = "EXAMPLE-pass";
/// The language for readers whose own has no templates.
const FALLBACK: &str = "en";
/// The variables of a template, besides `code` in mode `pass` and `file` in mode `sealed`.
const VARIABLES: [&str; 12] = [
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
/// Names that minijinja defines.
const BUILTINS: [&str; 6] = ["range", "dict", "namespace", "super", "loop", "caller"];
/// The files of a mail.
const FILES: [&str; 3] = ["subject.txt", "letter.txt", "letter.html"];

/// What a mail carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The code itself.
    Pass,
    /// An age file that only its reader can open; no code.
    Sealed,
    /// The notice that a pass is ready and who has it; no code.
    Notice,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Pass, Self::Sealed, Self::Notice];

    /// The name in `--body` and of the folder of templates.
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

pub enum LetterContent<'a> {
    Pass(&'a Pass),
    /// From a sealed copy.
    Opened(&'a OpenedRow),
    /// The age file for the reader, armoured or not.
    Sealed(&'a [u8]),
    Notice,
}

impl LetterContent<'_> {
    #[must_use]
    pub const fn mode(&self) -> Mode {
        match self {
            Self::Pass(_) | Self::Opened(_) => Mode::Pass,
            Self::Sealed(_) => Mode::Sealed,
            Self::Notice => Mode::Notice,
        }
    }
}

/// A rendered mail. May hold a code: it has no `Debug`, and is wiped when dropped.
pub struct Letter {
    locale: String,
    subject: String,
    text: Zeroizing<String>,
    html: Zeroizing<String>,
    attachment: Option<(String, Vec<u8>)>,
    pub(super) redactor: Redactor,
}

impl Letter {
    /// The language, which is not always the requested one.
    #[must_use]
    pub fn locale(&self) -> &str {
        &self.locale
    }

    /// One line, never with a code.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A complete document.
    #[must_use]
    pub fn html(&self) -> &str {
        &self.html
    }

    #[must_use]
    pub fn attachment(&self) -> Option<(&str, &[u8])> {
        self.attachment.as_ref().map(|(name, file)| (name.as_str(), file.as_slice()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("failed to read the template {path}: {why}; check that it is a file you may read")]
    Unreadable { path: PathBuf, why: String },
    /// Over [`limits::MAX_TEMPLATE_BYTES`].
    #[error(
        "the template {path} is larger than {max} bytes; shorten it",
        max = limits::MAX_TEMPLATE_BYTES
    )]
    TooLarge { path: PathBuf },
    #[error(
        "the template folder holds {path}, which no letter is made of; name templates \
         LOCALE/MODE/FILE, such as nl/pass/letter.txt, with the modes pass, sealed, notice and \
         the files subject.txt, letter.txt, letter.html"
    )]
    Stray { path: PathBuf },
    #[error("the template {path}, line {line}: {why}")]
    Faulty {
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        why: String,
    },
    /// An unknown variable.
    #[error(
        "the template {path}, line {line}: {{{{ {name} }}}} is not known; use one of {known}, or \
         columns[\"…\"] for a column of the wave",
        known = VARIABLES.join(", ")
    )]
    Unknown {
        path: PathBuf,
        /// Of its first use, counted from 1.
        line: usize,
        name: String,
    },
    /// Uses `code` where it is not allowed.
    #[error(
        "the template {path}, line {line}: it names the code, which stands in the letters of mode \
         pass alone and never in a subject; remove it"
    )]
    NamesCode {
        path: PathBuf,
        /// Of its first use, counted from 1.
        line: usize,
    },
    #[error(
        "the templates for {locale}, mode {mode}, lack {file}; write it, for a letter is never put \
         together out of two languages"
    )]
    Incomplete { locale: String, mode: Mode, file: &'static str },
    #[error("the template {path} gives an empty text; write one")]
    Empty { path: PathBuf },
    /// Rendering failed for one row. Gives no reason, because that might quote the code.
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

pub struct Templates {
    environment: Environment<'static>,
    names: BTreeSet<String>,
    /// The files of the user's own templates, by name.
    custom: BTreeMap<String, PathBuf>,
}

impl Templates {
    /// Loads the built-in templates and those of `dir`, which take precedence.
    pub fn load(dir: Option<&Path>) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(limits::TEMPLATE_FUEL));
        environment.set_auto_escape_callback(|name| {
            let html = Path::new(name).extension().is_some_and(|end| end == "html");
            if html { AutoEscape::Html } else { AutoEscape::None }
        });
        let names = BTreeSet::new();
        let mut templates = Self { environment, names, custom: BTreeMap::new() };
        for (name, source) in builtin::TEMPLATES {
            templates.add(name.to_owned(), source.to_owned())?;
        }
        for (name, path) in dir.map(template_files).transpose()?.unwrap_or_default() {
            let source = read(&path)?;
            templates.custom.insert(name.clone(), path);
            templates.add(name, source)?;
        }
        Ok(templates)
    }

    /// Renders the mails of these modes and locales with a dummy code and returns every error. None
    /// for one row's facts means none for any row, since all rows have the same columns.
    #[must_use]
    pub fn check(&self, modes: &[Mode], locales: &[&str], facts: &Facts) -> Vec<TemplateError> {
        let mut wrong = Vec::new();
        for mode in modes {
            for locale in locales {
                let found = match self.select(*mode, locale) {
                    Err(error) => vec![error],
                    Ok(files) => match self.unknown_variables(*mode, &files) {
                        unknown if unknown.is_empty() => {
                            self.preview(*mode, locale, facts).err().into_iter().collect()
                        }
                        unknown => unknown,
                    },
                };
                wrong.extend(found);
            }
        }
        let mut seen = BTreeSet::new();
        wrong.retain(|error| seen.insert(error.to_string()));
        wrong
    }

    /// Whether a template of one of these modes uses a variable, such as `manager`.
    #[must_use]
    pub fn use_variable(&self, modes: &[Mode], variable: &str) -> bool {
        let folders: Vec<String> = modes.iter().map(|mode| format!("/{mode}/")).collect();
        self.names
            .iter()
            .filter(|name| {
                *name == builtin::LAYOUT || folders.iter().any(|mode| name.contains(mode))
            })
            .filter_map(|name| self.environment.get_template(name).ok())
            .any(|template| template.undeclared_variables(false).contains(variable))
    }

    /// Renders with a dummy code or a dummy file.
    pub fn preview(
        &self,
        mode: Mode,
        locale: &str,
        facts: &Facts,
    ) -> Result<Letter, TemplateError> {
        let code = (mode == Mode::Pass).then_some(DUMMY_CODE);
        let file: Option<&[u8]> = (mode == Mode::Sealed).then_some(b"example");
        self.render_with(mode, locale, facts, code, file)
    }

    /// Renders the mail for one person: the only caller of [`Pass::reveal`]. Where there is a code,
    /// an error quotes nothing.
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
        self.render_with(content.mode(), locale, facts, code, file).map_err(|error| match error {
            TemplateError::Faulty { path, line, .. } if code.is_some() => {
                TemplateError::Failed { path, line }
            }
            error => error,
        })
    }

    fn render_with(
        &self,
        mode: Mode,
        locale: &str,
        facts: &Facts,
        code: Option<&str>,
        file: Option<&[u8]>,
    ) -> Result<Letter, TemplateError> {
        let files = self.select(mode, locale)?;
        let attachment = file.map(|file| (file_name(facts), file.to_vec()));
        let name = attachment.as_ref().map(|(name, _)| name.as_str());
        let [subject, text, html] = &files.names;
        // Without the code, which must not get into a header.
        let subject = self.render_template(subject, &values(&files, facts, None, name))?;
        let all = values(&files, facts, code, name);
        let (text, html) = (self.render_template(text, &all)?, self.render_template(html, &all)?);
        let subject = header_text(&subject, limits::MAX_SUBJECT_CHARS);
        if subject.is_empty() {
            return Err(TemplateError::Empty { path: self.path(&files.names[0]) });
        }
        let redactor = code.map_or_else(Redactor::default, Redactor::new);
        Ok(Letter { locale: files.locale, subject, text, html, attachment, redactor })
    }

    /// Renders one template into a buffer that does not grow.
    fn render_template(
        &self,
        name: &str,
        values: &Value,
    ) -> Result<Zeroizing<String>, TemplateError> {
        let template = self.environment.get_template(name).map_err(|e| self.faulty(name, &e))?;
        let mut page = RenderBuffer(Zeroizing::new(Vec::with_capacity(limits::MAX_LETTER_BYTES)));
        template
            .render_captured_to(values.clone(), &mut page)
            .map_err(|e| self.faulty(name, &e))?;
        let text = std::str::from_utf8(&page.0).unwrap_or_default();
        let allowed = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
        let mut kept = Zeroizing::new(String::with_capacity(text.len()));
        kept.extend(text.chars().filter(|c| allowed(*c)));
        if kept.trim().is_empty() {
            return Err(TemplateError::Empty { path: self.path(name) });
        }
        Ok(kept)
    }

    /// The files for a reader: of the locale, else of its language, else English. Languages are
    /// never mixed.
    fn select(&self, mode: Mode, locale: &str) -> Result<Selection, TemplateError> {
        let wanted = locale.trim().replace('_', "-");
        for tags in [truncations(&wanted), vec![FALLBACK.to_owned()]] {
            let mut language = None;
            let mut pick = |file: &str| {
                tags.iter().find_map(|tag| {
                    let name = self.find(&format!("{tag}/{mode}/{file}"))?;
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
            return Ok(Selection {
                locale: language,
                names: picked.map(Option::unwrap_or_default),
            });
        }
        Err(TemplateError::Incomplete { locale: FALLBACK.to_owned(), mode, file: FILES[0] })
    }

    /// Finds a template, whatever the case of its folder's name.
    fn find(&self, name: &str) -> Option<&str> {
        let exact = self.names.get(name).map(String::as_str);
        exact.or_else(|| {
            self.names.iter().find(|one| one.eq_ignore_ascii_case(name)).map(String::as_str)
        })
    }

    /// Unknown variables, also in branches that are not rendered.
    fn unknown_variables(&self, mode: Mode, files: &Selection) -> Vec<TemplateError> {
        let mut wrong = Vec::new();
        for name in files.names.iter().map(String::as_str).chain([builtin::LAYOUT]) {
            let Ok(template) = self.environment.get_template(name) else { continue };
            let path = self.path(name);
            let line = |word: &str| line_of(template.source(), word);
            let mut words: Vec<_> = template.undeclared_variables(false).into_iter().collect();
            words.sort();
            for word in words {
                let codeless = mode != Mode::Pass || name.ends_with(FILES[0]);
                let known = VARIABLES.contains(&&*word)
                    || BUILTINS.contains(&&*word)
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

    /// The path is that of the innermost error, which may be in the page around the mail.
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
        let (path, line) = (self.path(name), error.line().unwrap_or(1));
        TemplateError::Faulty { path, line, why: plain(&why) }
    }

    /// The template's path, for messages.
    fn path(&self, name: &str) -> PathBuf {
        self.custom.get(name).cloned().unwrap_or_else(|| Path::new("built-in").join(name))
    }
}

/// The files for one reader.
struct Selection {
    locale: String,
    names: [String; 3],
}

/// The code as a value that minijinja renders but does not copy.
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

/// A buffer that refuses what exceeds its initial capacity.
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

fn values(files: &Selection, facts: &Facts, code: Option<&str>, file: Option<&str>) -> Value {
    let language = files.locale.split('-').next().unwrap_or(FALLBACK);
    let start = facts.start.to_zoned(facts.zone.clone());
    let lifetime = std::time::Duration::from_secs(u64::from(facts.lifetime_minutes) * 60);
    let end = clock::later(facts.start, lifetime).to_zoned(facts.zone.clone());
    let person =
        |one: &NamedPerson| context! { name => one.name.clone(), mail => one.mail.clone() };
    let common = context! {
        user => context! { upn => facts.upn.as_str(), name => facts.shown_name() },
        manager => facts.manager.as_ref().map(person),
        columns => facts.columns.clone(),
        start => dates::date_time(language, &start),
        end => dates::date_time(language, &end),
        zone => zone_name(&start),
        lifetime => dates::duration(language, facts.lifetime_minutes),
        lifetime_minutes => facts.lifetime_minutes,
        one_time => facts.one_time,
        support => facts.support.clone(),
        holder => facts.holder.as_ref().map(person),
        lang => files.locale.clone(),
    };
    // What is left out is undefined: using it is an error.
    match (code, file) {
        (Some(code), _) => {
            let code = Value::from_object(CodeValue(Zeroizing::new(code.to_owned())));
            context! { code => code, ..common }
        }
        (None, Some(file)) => context! { file => file, ..common },
        (None, None) => common,
    }
}

/// `Europe/Berlin`, else `UTC+01:00`.
fn zone_name(at: &Zoned) -> String {
    match at.time_zone().iana_name() {
        Some(name) => name.to_owned(),
        None => format!("UTC{}", at.offset()),
    }
}

/// A tag and its shorter forms: `nl-BE`, `nl` (RFC 4647, lookup).
fn truncations(tag: &str) -> Vec<String> {
    let parts: Vec<&str> = tag.split('-').filter(|part| !part.is_empty()).collect();
    (1..=parts.len()).rev().map(|length| parts[..length].join("-")).collect()
}

/// A name for the attached file that is valid on every system.
fn file_name(facts: &Facts) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' };
    let mut name: String = facts.upn.as_str().chars().map(safe).collect();
    name.truncate(limits::MAX_NAME_BYTES);
    format!("{}.age", name.trim_matches(['.', '-']))
}

/// The line in which a template first uses a word, counted from 1.
fn line_of(source: &str, word: &str) -> usize {
    let uses = |line: &str| {
        line.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|one| one == word)
            && (line.contains("{{") || line.contains("{%"))
    };
    source.lines().position(uses).map_or(1, |at| at + 1)
}

/// The templates in a folder, by name.
fn template_files(dir: &Path) -> Result<Vec<(String, PathBuf)>, TemplateError> {
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

/// The entries of a folder, sorted, without hidden ones.
fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>, TemplateError> {
    let unreadable = |error: std::io::Error| match error.kind() {
        // Each system has another error for a file that is read as a folder.
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
