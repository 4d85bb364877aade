//! Promises that a command which is told to people works when it is pasted: the run it means is
//! named, and what of this command's own options it needs is said again. Must never repeat an
//! option that only this command has use for.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::args::{Common, MailArgs, WaveArgs};
use crate::config::Settings;
use tapwave_core::shown::shell_word;
use tapwave_ledger::{Registry, RunFolder};

/// A run as it is typed in commands.
#[derive(Debug)]
pub(super) struct RunCommands {
    run: String,
    options: String,
}

impl RunCommands {
    /// By its path alone where nobody knows what runs there are.
    pub(super) fn new(folder: &RunFolder, registry: Option<&Registry>, common: &Common) -> Self {
        let run = registry.map_or_else(
            || folder.path().display().to_string(),
            |registry| registry.word_for(folder),
        );
        Self { run: shell_word(&run, "RUN"), options: options(common) }
    }

    pub(super) fn resume(&self) -> String {
        self.online("resume", "")
    }

    /// The same, after the passes that hold these people's rows were deleted.
    pub(super) fn resume_without(&self, upns: &[String]) -> String {
        let mut words = CommandWords(String::new());
        words.each("--remove-found", upns);
        self.online("resume", &words.0)
    }

    pub(super) fn cleanup(&self) -> String {
        self.online("cleanup", "")
    }

    /// `more` begins with a blank, or is empty.
    pub(super) fn deliver(&self, more: &str) -> String {
        self.online("deliver", more)
    }

    /// What Graph says of every row.
    pub(super) fn live_status(&self) -> String {
        self.online("status", " --live")
    }

    /// What the ledger says of every row; needs no settings and no sign-in.
    pub(super) fn status(&self) -> String {
        format!("tapwave status {}", self.run)
    }

    /// The recipient's side, which needs no settings either.
    pub(super) fn open(&self) -> String {
        format!("tapwave open {} -i IDENTITY", self.run)
    }

    fn online(&self, verb: &str, more: &str) -> String {
        format!("tapwave {verb} {}{more}{}", self.run, self.options)
    }
}

/// A command over a wave with these flags, as it is typed: the same recipients, options and
/// mail, at the same tenant.
pub(super) fn over_wave(
    verb: &str,
    wave: &Path,
    want: &WaveArgs,
    mail: Option<&MailArgs>,
    common: &Common,
) -> String {
    // Named one by one, so that a flag that is added is not forgotten here.
    let WaveArgs {
        recipients,
        recipient_files,
        break_glass,
        lifetime,
        start,
        time_zone,
        one_time,
        multi_use,
        groups,
        existing,
        skip_ineligible,
        rejects,
    } = want;
    let mut words = CommandWords(format!("tapwave {verb} {}", self::wave(wave)));
    words.each("-r", recipients);
    words.files("-R", recipient_files);
    words.each("--break-glass", break_glass);
    words.value("--lifetime", lifetime.as_ref());
    words.value("--start", start.as_ref());
    words.value("--time-zone", time_zone.as_ref());
    words.switch("--one-time", *one_time);
    words.switch("--multi-use", *multi_use);
    words.each("--group", groups);
    words.choice("--existing", *existing);
    words.switch("--skip-ineligible", *skip_ineligible);
    // One that is there by now would be refused, since nothing is written over it.
    let rejects = rejects.clone().filter(|path| path.symlink_metadata().is_err());
    words.files("--rejects", rejects.as_slice());
    if let Some(mail) = mail {
        words.mail(mail);
    }
    words.0.push_str(&options(common));
    words.value("--max-in-flight", common.max_in_flight.as_ref());
    words.value("--max-rate", common.max_rate.as_ref());
    words.value("--settle-after", common.settle_after.as_ref());
    words.0
}

/// The command that removes what the people of a wave hold, whoever issued it.
pub(super) fn cleanup_of(wave: &Path, common: &Common) -> String {
    format!("tapwave cleanup --csv {}{}", self::wave(wave), options(common))
}

/// These flags, and a place for a recipient where neither they nor the settings name one.
pub(super) fn with_somebody(want: &WaveArgs, settings: &Settings) -> WaveArgs {
    let mut want = want.clone();
    let named = want.recipients.len() + want.recipient_files.len() + settings.recipients.len();
    if named == 0 {
        want.recipients.push("age1…".to_owned());
    }
    want
}

/// The options of this command without which another one would read other settings or sign in
/// elsewhere, as they are typed; each begins with a blank. The address of Graph is among them: a
/// run remembers it, but a token goes only where somebody says.
pub(super) fn options(common: &Common) -> String {
    let mut words = CommandWords(String::new());
    words.files("--config", common.config.as_slice());
    words.value("--tenant", common.tenant.as_ref());
    words.choice("--auth", common.auth);
    words.value("--client-id", common.client_id.as_ref());
    words.choice("--cloud", common.cloud);
    words.value("--graph-url", common.graph_url.as_ref());
    words.value("--authority-url", common.authority_url.as_ref());
    words.files("--ca-file", common.ca_file.as_slice());
    words.value("--proxy", common.proxy.as_ref());
    words.0
}

/// The command that opens these files, folders and runs with these identities.
pub(super) fn open_files(what: &[String], identities: &[PathBuf]) -> String {
    let words: Vec<String> = what.iter().map(|one| file(Path::new(one))).collect();
    format!("tapwave open {}{}", words.join(" "), self::identities(identities))
}

/// Identity files as they are typed; each begins with a blank.
pub(super) fn identities(paths: &[PathBuf]) -> String {
    let mut words = CommandWords(String::new());
    words.files("-i", paths);
    words.0
}

/// A wave as one word, which no command takes for an option.
pub(super) fn wave(path: &Path) -> String {
    path_word(path, "WAVE.csv")
}

/// The same for any other file.
pub(super) fn file(path: &Path) -> String {
    path_word(path, "FILE")
}

fn path_word(path: &Path, stand_in: &str) -> String {
    let text = path.display().to_string();
    let is_like_an_option = text.starts_with('-') && text != "-";
    shell_word(&if is_like_an_option { format!("./{text}") } else { text }, stand_in)
}

/// Words of a command line, each with a blank before it.
struct CommandWords(String);

impl CommandWords {
    fn switch(&mut self, flag: &str, is_on: bool) {
        if is_on {
            self.0.extend([" ", flag]);
        }
    }

    fn value(&mut self, flag: &str, value: Option<&impl ToString>) {
        if let Some(value) = value.map(ToString::to_string) {
            // Apart from its flag, it would be taken for one.
            let between = if value.starts_with('-') { "=" } else { " " };
            self.0.extend([" ", flag, between, &shell_word(&value, "VALUE")]);
        }
    }

    fn each(&mut self, flag: &str, values: &[String]) {
        for value in values {
            self.value(flag, Some(value));
        }
    }

    fn files(&mut self, flag: &str, paths: &[PathBuf]) {
        for path in paths {
            self.0.extend([" ", flag, " ", &file(path)]);
        }
    }

    fn choice<T: ValueEnum>(&mut self, flag: &str, value: Option<T>) {
        let value = value.and_then(|value| value.to_possible_value());
        self.value(flag, value.map(|value| value.get_name().to_owned()).as_ref());
    }

    fn mail(&mut self, mail: &MailArgs) {
        let MailArgs { deliver, to, notice_to, body, template, allow_late, identities } = mail;
        self.switch("--deliver", *deliver);
        self.value("--to", Some(&to.join(",")).filter(|to| !to.is_empty()));
        self.value("--notice-to", Some(&notice_to.join(",")).filter(|to| !to.is_empty()));
        self.choice("--body", *body);
        self.files("--template", template.as_slice());
        self.switch("--allow-late", *allow_late);
        self.files("-i", identities);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn what_a_command_needs_is_said_again_and_nothing_else() {
        let common = Common {
            config: Some("my settings.toml".into()),
            auth: Some(crate::args::Auth::DeviceCode),
            graph_url: Some("https://graph.microsoft.us".to_owned()),
            settle_after: Some("10m".to_owned()),
            json: true,
            yes: true,
            ..Common::default()
        };
        let quoted = shell_word("my settings.toml", "FILE");
        let said_again =
            format!("--config {quoted} --auth device-code --graph-url https://graph.microsoft.us");
        assert_eq!(options(&common), format!(" {said_again}"));
        let run = RunCommands { run: "wave".to_owned(), options: options(&common) };
        assert_eq!(run.status(), "tapwave status wave");
        let live = format!("tapwave status wave --live {said_again}");
        assert_eq!(run.live_status(), live);
    }

    #[test]
    fn a_value_that_begins_with_a_dash_is_a_value_all_the_same() {
        let want = WaveArgs {
            recipients: vec!["-lead".to_owned()],
            recipient_files: vec!["-team.txt".into()],
            groups: vec!["-Contractors".to_owned(), "Starters".to_owned()],
            ..WaveArgs::default()
        };
        let common = Common { tenant: Some("-t".to_owned()), ..Common::default() };
        let told = over_wave("check", Path::new("-wave.csv"), &want, None, &common);
        assert_eq!(
            told,
            "tapwave check ./-wave.csv -r=-lead -R ./-team.txt --group=-Contractors \
             --group Starters --tenant=-t"
        );
        let cli = Cli::try_parse_from(told.split(' ')).expect("it is understood");
        assert_eq!(cli.common.tenant, common.tenant);
        let Command::Check(check) = cli.command else { panic!("another command") };
        assert_eq!(check.wave, Some("./-wave.csv".into()));
        assert_eq!(check.want.recipients, want.recipients);
        assert_eq!(check.want.recipient_files, [PathBuf::from("./-team.txt")]);
        assert_eq!(check.want.groups, want.groups);
    }
}
