//! Promises the settings as people and scripts read them: `tapwave.settings/1`. A secret is
//! only ever `set`.

use std::io;

use serde::Serialize;

use super::{Report, shown, tables};
use crate::config::{EffectiveSetting, Settings};

#[derive(Serialize)]
struct SettingsJson<'a> {
    schema: &'static str,
    file: Option<String>,
    settings: &'a [EffectiveSetting],
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
            return self.json(&SettingsJson { schema: "tapwave.settings/1", file, settings });
        }
        match &file {
            Some(path) => self.info(format_args!("settings file: {}", shown(path))),
            None => self.info("no settings file"),
        }
        writeln!(io::stdout().lock(), "{}", tables::settings(&settings.known))
    }
}
