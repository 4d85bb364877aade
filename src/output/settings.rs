//! Promises the settings as people and scripts read them: `tapwave.settings/1`. A secret is
//! only ever `set`.

use std::io;

use serde::Serialize;

use super::{Report, shown, tables};
use crate::config::{Known, Settings};

#[derive(Serialize)]
struct Shape<'a> {
    schema: &'static str,
    file: Option<String>,
    settings: &'a [Known],
}

impl Report {
    /// The effective settings and where each came from.
    ///
    /// # Errors
    /// If stdout takes no more.
    pub fn settings(&self, settings: &Settings) -> io::Result<()> {
        use std::io::Write;
        let file = settings.file.as_ref().map(|path| path.display().to_string());
        if self.is_json() {
            let settings = &settings.known;
            return self.json(&Shape { schema: "tapwave.settings/1", file, settings });
        }
        match &file {
            Some(path) => self.say(format_args!("settings file: {}", shown(path))),
            None => self.say("no settings file"),
        }
        writeln!(io::stdout().lock(), "{}", tables::settings(&settings.known))
    }
}
