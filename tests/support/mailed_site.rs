//! Promises a place of work whose passes are mailed through a relay, and what that relay took.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use tapwave_simulator::Options;

use super::site::{Site, Told};
use super::smtp::{Manner, Relay, Taken};

/// What the relay takes for a password.
pub(crate) const PASSWORD: &str = "relayed-password-93ac";
/// The identity that opens the sealed copies.
pub(crate) const IDENTITY: [&str; 2] = ["-i", "id.txt"];

/// A site with a relay. Everybody of the wave has a mailbox of their own elsewhere.
pub(crate) struct Mailed {
    pub(crate) site: Site,
    pub(crate) relay: Relay,
}

impl Mailed {
    /// A tenant that behaves as `choose` says, and a kind relay.
    pub(crate) fn with(people: usize, choose: impl FnOnce(&mut Options)) -> Self {
        Self::of(Site::with(people, choose))
    }

    /// A site and a kind relay.
    pub(crate) fn of(site: Site) -> Self {
        let manner = Manner { secret: PASSWORD.to_owned(), ..Manner::default() };
        let relay = site.block_on(Relay::start(manner));
        let settings = format!(
            "ca_file = '{}'\n[mail]\ncourier = \"smtp\"\nfrom = \"IT <it@contoso.example>\"\n\
             host = \"localhost\"\nport = {}\nusername = \"user\"\n\
             password_env = \"SMTP_PASSWORD\"\nmax_per_minute = 60000\nmax_connections = 2\n",
            relay.authority().display(),
            relay.port
        );
        site.settings(&settings);
        let row = |upn: &String| format!("{upn},{}\n", reader_of(upn));
        let rows: String = site.people.iter().map(row).collect();
        fs::write(site.path("wave.csv"), format!("userPrincipalName,deliverTo\n{rows}"))
            .expect("written");
        Self { site, relay }
    }

    /// From now on mail goes out of the mailbox of the first, through Graph.
    pub(crate) fn through_graph(&self) {
        let settings = "[mail]\ncourier = \"graph\"\nfrom = \"IT <user1@contoso.example>\"\n\
                        max_per_minute = 60000\n";
        self.site.settings(settings);
    }

    /// The program with the relay's password.
    pub(crate) fn tapwave(&self, args: &[&str]) -> Command {
        let mut command = self.site.tapwave(args);
        command.env("SMTP_PASSWORD", PASSWORD);
        command
    }

    /// Runs a command to its end.
    pub(crate) fn told(&self, args: &[&str]) -> Told {
        Told::of(self.tapwave(args).output().expect("started"))
    }

    /// The mails that the relay took, by reader.
    pub(crate) fn taken(&self) -> BTreeMap<String, Vec<Taken>> {
        let mut all: BTreeMap<String, Vec<Taken>> = BTreeMap::new();
        for mail in &self.relay.seen().taken {
            let [to] = &mail.to[..] else { panic!("one reader, not {:?}", mail.to) };
            let reader = to.split(['<', '>']).nth(1).expect("an address").to_owned();
            all.entry(reader).or_default().push(mail.clone());
        }
        all
    }
}

/// Where somebody reads their mail.
pub(crate) fn reader_of(upn: &str) -> String {
    upn.replace("@contoso.", "@home.")
}

/// A mail's text with its soft line ends joined: codes are plain ASCII.
pub(crate) fn body(mail: &Taken) -> String {
    String::from_utf8_lossy(&mail.bytes).replace("=\r\n", "").replace("=3D", "=")
}
