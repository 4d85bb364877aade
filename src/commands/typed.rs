//! Promises that a command which is told to people works when it is pasted: the run it means is
//! named, and what of this command's own options it needs is said again. Must never repeat an
//! option that only this command has use for.

use std::any::TypeId;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory};

use crate::args::Cli;
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
    pub(super) fn new(folder: &RunFolder, registry: Option<&Registry>, line: &CommandLine) -> Self {
        let run = registry.map_or_else(
            || folder.path().display().to_string(),
            |registry| registry.word_for(folder),
        );
        Self { run: shell_word(&run, "RUN"), options: line.connection() }
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

/// This command as it was typed. The commands that it tells people to type repeat what they need
/// of it.
#[derive(Debug, Clone)]
pub struct CommandLine(ArgMatches);

/// Without these another command would read other settings or sign in elsewhere. The address of
/// Graph is among them: a run remembers it, but a token goes only where somebody says.
const CONNECTION: [&str; 9] = [
    "config",
    "tenant",
    "auth",
    "client_id",
    "cloud",
    "graph_url",
    "authority_url",
    "ca_file",
    "proxy",
];
/// What is asked of Graph, and how fast.
const PACE: [&str; 3] = ["max_in_flight", "max_rate", "settle_after"];
/// What only the command that was given it has use for, though others take it too.
const OF_ONE_COMMAND: [&str; 4] = ["wave", "access", "preview", "rejects"];

impl CommandLine {
    /// What stands behind the innermost subcommand, common options included.
    #[must_use]
    pub fn new(mut matches: &ArgMatches) -> Self {
        while let Some((_, of_command)) = matches.subcommand() {
            matches = of_command;
        }
        Self(matches.clone())
    }

    /// The options by which another command reads the same settings and signs in at the same
    /// place; each begins with a blank.
    pub(super) fn connection(&self) -> String {
        let mut words = CommandWords(String::new());
        self.repeat(&Cli::command(), CONNECTION, &mut words);
        words.0
    }

    /// A command over a wave with the same recipients, options and mail, at the same tenant.
    /// `rejects` is where it writes rows with problems; a file that is there would be refused.
    /// `recipient` is read beside those that were given.
    pub(super) fn over_wave(
        &self,
        verb: &str,
        wave: &Path,
        recipient: Option<&str>,
        rejects: Option<&Path>,
    ) -> String {
        let cli = Cli::command();
        let mut words = CommandWords(format!("tapwave {verb} {}", self::wave(wave)));
        words.value("-r", recipient);
        if let Some(command) = cli.find_subcommand(verb) {
            let ids = command.get_arguments().map(|arg| arg.get_id().as_str());
            self.repeat(command, ids.filter(|id| !OF_ONE_COMMAND.contains(id)), &mut words);
        }
        let rejects = rejects.filter(|path| path.symlink_metadata().is_err());
        words.files("--rejects", rejects);
        self.repeat(&cli, CONNECTION.into_iter().chain(PACE), &mut words);
        words.0
    }

    /// The command that removes what the people of a wave hold, whoever issued it.
    pub(super) fn cleanup_of(&self, wave: &Path) -> String {
        format!("tapwave cleanup --csv {}{}", self::wave(wave), self.connection())
    }

    /// Repeats those of these options of `command` that were typed.
    fn repeat<'a>(
        &self,
        command: &Command,
        ids: impl IntoIterator<Item = &'a str>,
        words: &mut CommandWords,
    ) {
        let given = |id: &&str| {
            self.0.try_contains_id(id).unwrap_or(false)
                && self.0.value_source(id) == Some(ValueSource::CommandLine)
        };
        for id in ids.into_iter().filter(given) {
            let Some(arg) = command.get_arguments().find(|arg| arg.get_id() == id) else {
                continue;
            };
            let short = arg.get_short().map(|short| format!("-{short}"));
            let long = arg.get_long().map(|long| format!("--{long}"));
            let Some(flag) = short.or(long) else { continue };
            if !arg.get_action().takes_values() {
                words.0.extend([" ", &flag]);
                continue;
            }
            let values = self.0.get_raw(id).into_iter().flatten();
            if arg.get_value_parser().type_id() == TypeId::of::<PathBuf>() {
                words.files(&flag, values.map(Path::new));
                continue;
            }
            let mut values: Vec<String> =
                values.map(|value| value.to_string_lossy().into_owned()).collect();
            if arg.get_value_delimiter().is_some() {
                values = vec![values.join(",")];
            }
            words.each(&flag, &values);
        }
    }
}

/// The command that opens these files, folders and runs with these identities.
pub(super) fn open_files(what: &[String], identities: &[PathBuf]) -> String {
    let words: Vec<String> = what.iter().map(|one| file(Path::new(one))).collect();
    format!("tapwave open {}{}", words.join(" "), self::identities(identities))
}

/// Identity files as they are typed; each begins with a blank.
pub(super) fn identities(paths: &[PathBuf]) -> String {
    let mut words = CommandWords(String::new());
    words.files("-i", paths.iter().map(PathBuf::as_path));
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

#[cfg(test)]
impl CommandLine {
    /// The same of these words.
    pub(super) fn of(words: &[&str]) -> Self {
        Self::new(&Cli::command().try_get_matches_from(words).expect("it is understood"))
    }
}

/// Words of a command line, each with a blank before it.
struct CommandWords(String);

impl CommandWords {
    fn value(&mut self, flag: &str, value: Option<&str>) {
        if let Some(value) = value {
            // Apart from its flag, it would be taken for one.
            let between = if value.starts_with('-') { "=" } else { " " };
            self.0.extend([" ", flag, between, &shell_word(value, "VALUE")]);
        }
    }

    fn each(&mut self, flag: &str, values: &[String]) {
        for value in values {
            self.value(flag, Some(value));
        }
    }

    fn files<'a>(&mut self, flag: &str, paths: impl IntoIterator<Item = &'a Path>) {
        for path in paths {
            self.0.extend([" ", flag, " ", &file(path)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn every_option_that_is_repeated_exists() {
        let cli = Cli::command();
        let is_one_of = |command: &clap::Command, id: &str| {
            command.get_arguments().any(|arg| arg.get_id() == id)
        };
        for id in CONNECTION.into_iter().chain(PACE) {
            assert!(is_one_of(&cli, id), "{id}");
        }
        for id in OF_ONE_COMMAND {
            let verbs = ["check", "run"].into_iter().filter_map(|verb| cli.find_subcommand(verb));
            assert!(verbs.into_iter().any(|verb| is_one_of(verb, id)), "{id}");
        }
    }

    #[test]
    fn what_a_command_needs_is_said_again_and_nothing_else() {
        let line = CommandLine::of(&[
            "tapwave",
            "--yes",
            "--auth",
            "device-code",
            "resume",
            "wave",
            "--config",
            "my settings.toml",
            "--graph-url",
            "https://graph.microsoft.us",
            "--settle-after=10m",
            "--json",
        ]);
        let quoted = shell_word("my settings.toml", "FILE");
        let said_again =
            format!("--config {quoted} --auth device-code --graph-url https://graph.microsoft.us");
        assert_eq!(line.connection(), format!(" {said_again}"));
        let run = RunCommands { run: "wave".to_owned(), options: line.connection() };
        assert_eq!(run.status(), "tapwave status wave");
        let shown = format!("tapwave status wave --live {said_again}");
        assert_eq!(run.live_status(), shown);
    }

    #[test]
    fn a_value_that_begins_with_a_dash_is_a_value_all_the_same() {
        let given = [
            "tapwave",
            "run",
            "other.csv",
            "-r=-lead",
            "-R",
            "./-team.txt",
            "--group=-Contractors",
            "--group",
            "Starters",
            "--tenant=-t",
            "--keep-going",
            "--to",
            "manager",
        ];
        let command =
            CommandLine::of(&given).over_wave("check", Path::new("-wave.csv"), None, None);
        assert_eq!(
            command,
            "tapwave check ./-wave.csv -r=-lead -R ./-team.txt --group=-Contractors \
             --group Starters --to manager --tenant=-t"
        );
        let cli = Cli::try_parse_from(command.split(' ')).expect("it is understood");
        assert_eq!(cli.common.tenant.as_deref(), Some("-t"));
        let Command::Check(check) = cli.command else { panic!("another command") };
        assert_eq!(check.wave, Some("./-wave.csv".into()));
        assert_eq!(check.want.recipients, ["-lead"]);
        assert_eq!(check.want.recipient_files, [PathBuf::from("./-team.txt")]);
        assert_eq!(check.want.groups, ["-Contractors", "Starters"]);
    }
}
