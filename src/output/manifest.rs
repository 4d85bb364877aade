//! Promises the manifest as people who watch audit logs read it: CSV, or `tapwave.manifest/1`.
//! Written pass by pass, so that memory stays flat.

use std::io::{self, BufWriter, Stdout, Write};

use super::Report;
use tapwave_pipeline::run::manifest::Expected;

/// The manifest while it is written to stdout.
pub enum Manifest {
    /// With a header line.
    Csv(Box<csv::Writer<Stdout>>),
    /// One object.
    Json {
        out: BufWriter<Stdout>,
        /// Whether a pass was written before.
        more: bool,
    },
}

impl Report {
    /// Begins the manifest of a run.
    ///
    /// # Errors
    /// If stdout takes no more.
    pub fn manifest(&self, run: &str, tenant: Option<&str>) -> io::Result<Manifest> {
        if !self.is_json() {
            return Ok(Manifest::Csv(Box::new(csv::Writer::from_writer(io::stdout()))));
        }
        let mut out = BufWriter::new(io::stdout());
        out.write_all(br#"{"schema":"tapwave.manifest/1","run":"#)?;
        serde_json::to_writer(&mut out, run)?;
        out.write_all(br#","tenant":"#)?;
        serde_json::to_writer(&mut out, &tenant)?;
        out.write_all(br#","passes":["#)?;
        Ok(Manifest::Json { out, more: false })
    }
}

impl Manifest {
    /// Writes one pass.
    ///
    /// # Errors
    /// If stdout takes no more.
    pub fn pass(&mut self, pass: &Expected) -> io::Result<()> {
        match self {
            Self::Csv(out) => out.serialize(pass).map_err(io::Error::other),
            Self::Json { out, more } => {
                let between: &[u8] = if std::mem::replace(more, true) { b",\n" } else { b"\n" };
                out.write_all(between)?;
                serde_json::to_writer(out, pass).map_err(io::Error::from)
            }
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// If stdout takes no more.
    pub fn end(self) -> io::Result<()> {
        match self {
            Self::Csv(mut out) => out.flush(),
            Self::Json { mut out, .. } => {
                out.write_all(b"\n]}\n")?;
                out.flush()
            }
        }
    }
}
