//! Promises the shapes of tables and of the JSON that is not a summary.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::{ErrorMessage, TOLD, shown};
use crate::config::EffectiveSetting;
use tapwave_core::exit::Exit;
use tapwave_core::ids::Line;
use tapwave_ledger::{Listed, RecipientRecord};
use tapwave_pipeline::run::intake::{self, RowProblem};

/// Rows with problems, for a terminal.
pub(super) fn problems(problems: &[RowProblem]) -> String {
    let mut table = plain(["LINE", "USER", "PROBLEM"]);
    for problem in problems {
        table.add_row([problem.line.to_string(), shown(&problem.upn), shown(&problem.reason)]);
    }
    printed(table)
}

/// `tapwave.check/1`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CheckJson<'a> {
    schema: &'static str,
    #[serde(rename = "verdict")]
    said: &'a str,
    rows: u64,
    eligible: u64,
    skipped: u64,
    ineligible: u64,
    problems: Vec<ProblemJson<'a>>,
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    mail: &'a [String],
    recipients: &'a [RecipientRecord],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProblemJson<'a> {
    row: Line,
    user_principal_name: &'a str,
    reason: &'a str,
}

impl<'a> CheckJson<'a> {
    pub(super) fn of(
        verdict: &'a intake::WaveCheck,
        said: &'a str,
        recipients: &'a [RecipientRecord],
    ) -> Self {
        let problem = |problem: &'a RowProblem| ProblemJson {
            row: problem.line,
            user_principal_name: &problem.upn,
            reason: &problem.reason,
        };
        Self {
            schema: "tapwave.check/1",
            said,
            rows: verdict.rows,
            eligible: verdict.eligible,
            skipped: verdict.skipped,
            ineligible: verdict.ineligible,
            problems: verdict.problems.iter().map(problem).collect(),
            warnings: verdict.warnings.iter().map(ToString::to_string).collect(),
            mail: &verdict.mail,
            recipients,
        }
    }
}

/// `tapwave.error/1`.
#[derive(Serialize)]
pub(super) struct ErrorJson<'a> {
    schema: &'static str,
    error: &'a str,
    hints: &'a [String],
    exit: u8,
}

pub(super) fn error(message: &ErrorMessage, exit: Exit) -> ErrorJson<'_> {
    ErrorJson {
        schema: "tapwave.error/1",
        error: &message.what,
        hints: &message.hints,
        exit: exit as u8,
    }
}

/// `tapwave.runs/1`.
#[derive(Serialize)]
pub(super) struct RunsJson {
    schema: &'static str,
    runs: Vec<RunJson>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RunJson {
    name: String,
    path: String,
    created: Option<String>,
    wave: Option<String>,
    rows: Option<u64>,
    states: Option<std::collections::BTreeMap<&'static str, u64>>,
    closed: Option<String>,
    purged: Option<String>,
    error: Option<String>,
}

pub(super) fn runs(runs: &[Listed]) -> RunsJson {
    let run = |listed: &Listed| {
        let summary = listed.summary.as_ref().ok();
        RunJson {
            name: listed.name.clone(),
            path: listed.path.display().to_string(),
            created: summary.map(|one| one.about.created.to_string()),
            wave: summary.map(|one| one.about.wave.path.clone()),
            rows: summary.map(|one| one.counts.rows()),
            states: summary.map(|one| {
                let counted =
                    TOLD.into_iter().map(|standing| (standing.name(), one.counts.of(standing)));
                counted.filter(|(_, count)| *count > 0).collect()
            }),
            closed: summary.and_then(|one| one.closed).map(|at| at.to_string()),
            purged: summary.and_then(|one| one.purged).map(|at| at.to_string()),
            error: listed.summary.as_ref().err().map(ToString::to_string),
        }
    };
    RunsJson { schema: "tapwave.runs/1", runs: runs.iter().map(run).collect() }
}

/// The runs on this machine, for a terminal. Those that share a name are told by their path,
/// since a command takes no other word for them.
pub(super) fn runs_table(runs: &[Listed]) -> String {
    let mut table = plain(["RUN", "MADE (UTC)", "ROWS", "STATES"]);
    for run in runs {
        let is_shared = runs.iter().filter(|other| other.name == run.name).count() > 1;
        let name = if is_shared { run.path.display().to_string() } else { run.name.clone() };
        match &run.summary {
            Ok(summary) => {
                let counted = TOLD.into_iter().filter_map(|standing| {
                    let count = summary.counts.of(standing);
                    (count > 0).then(|| format!("{count} {}", standing.name()))
                });
                let mut states: Vec<String> = counted.collect();
                if summary.purged.is_some() {
                    states.push("purged".to_owned());
                } else if summary.closed.is_some() {
                    states.push("closed".to_owned());
                }
                table.add_row([
                    shown(&name),
                    summary.about.created.strftime("%Y-%m-%d %H:%M").to_string(),
                    summary.counts.rows().to_string(),
                    states.join(", "),
                ]);
            }
            Err(error) => {
                let unreadable = format!("cannot be read: {}", shown(&error.to_string()));
                table.add_row([shown(&name), String::new(), String::new(), unreadable]);
            }
        }
    }
    printed(table)
}

/// A table as it is printed: two blanks between columns, none around the lines.
pub(super) fn printed(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// The settings, for a terminal.
pub(super) fn settings(known: &[EffectiveSetting]) -> String {
    let mut table = plain(["SETTING", "VALUE", "FROM"]);
    for EffectiveSetting { name, value, from } in known {
        let value = value.as_deref().map(shown).unwrap_or_default();
        table.add_row([(*name).to_owned(), value, from.to_string()]);
    }
    table.to_string()
}

fn plain<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(head);
    table
}
