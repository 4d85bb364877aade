//! Promises a real mail server: Postfix with Dovecot's sign-in, from private folders on
//! loopback, delivering into a Maildir that the test reads. Only where both are installed and
//! the test runs as root, which their daemons need.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon may take to be there, and a mail to arrive.
const PATIENCE: Duration = Duration::from_mins(5);
/// Maildirs belong to it: Debian's nobody.
const NOBODY: u32 = 65534;

/// A running server; stopped when dropped.
pub(crate) struct Postfix {
    folder: tempfile::TempDir,
    /// STARTTLS and sign-in demanded.
    pub(crate) submission: u16,
    /// TLS from the first byte.
    pub(crate) implicit: u16,
}

impl Postfix {
    /// Starts one with a certificate and key for localhost, which takes so many mails a minute
    /// (0: any number); nothing, with a word why, where it cannot be.
    #[expect(clippy::print_stdout, reason = "says why a test was skipped")]
    pub(crate) fn start(certificate: &Path, key: &Path, a_minute: u32) -> Option<Self> {
        let there = |path: &str| Path::new(path).exists();
        let root = Command::new("id").arg("-u").output().ok()?.stdout == b"0\n";
        if !(root && there("/usr/sbin/postfix") && there("/usr/sbin/dovecot")) {
            println!("skipped: needs root, Postfix and Dovecot");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let (submission, implicit) = (free_port(), free_port());
        let server = Self { folder, submission, implicit };
        server.configure(certificate, key, a_minute);
        server.dovecot(&[]);
        let configuration = server.at("postfix");
        let started =
            quiet("/usr/sbin/postfix").arg("-c").arg(&configuration).arg("start").status();
        assert!(started.expect("Postfix").success(), "Postfix did not start: {}", server.log());
        for port in [submission, implicit] {
            until("Postfix listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        }
        Some(server)
    }

    /// The mails that arrived, oldest first, once there are `count`.
    pub(crate) fn arrived(&self, count: usize) -> Vec<Vec<u8>> {
        let folder = self.at("mail/ada/new");
        let names = || {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let started = Instant::now();
        while names().len() < count {
            assert!(started.elapsed() < PATIENCE, "{} arrived: {}", names().len(), self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut paths = names();
        paths.sort();
        paths.iter().map(|path| fs::read(path).expect("a mail")).collect()
    }

    /// How many mails have arrived.
    pub(crate) fn count(&self) -> usize {
        fs::read_dir(self.at("mail/ada/new")).map_or(0, Iterator::count)
    }

    /// Whether nothing waits in its queues.
    pub(crate) fn is_at_rest(&self) -> bool {
        let empty = |name: &str| {
            let entries = fs::read_dir(self.at("queue").join(name));
            entries.map_or(true, |mut entries| entries.next().is_none())
        };
        ["maildrop", "incoming", "active", "deferred"].into_iter().all(empty)
    }

    /// How many mails have arrived for each address, by the header that Postfix puts on top.
    pub(crate) fn readers(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for mail in self.arrived(0) {
            let text = String::from_utf8_lossy(&mail);
            let to = text.lines().find_map(|line| line.strip_prefix("X-Original-To: "));
            *counts.entry(to.expect("a reader").to_owned()).or_insert(0) += 1;
        }
        counts
    }

    /// What Postfix wrote about itself.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.at("log/postfix.log")).unwrap_or_default()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, certificate: &Path, key: &Path, a_minute: u32) {
        let base = self.folder.path().display();
        for name in ["postfix", "queue", "data", "mail", "log", "dovecot", "run"] {
            fs::create_dir(self.at(name)).expect("a folder");
        }
        let postfix = id_of("postfix");
        chown(self.at("data"), Some(postfix), None).expect("an owner");
        chown(self.at("mail"), Some(NOBODY), None).expect("an owner");
        fs::copy(certificate, self.at("cert.pem")).expect("a copy");
        fs::copy(key, self.at("key.pem")).expect("a copy");
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {base}/queue\n\
             data_directory = {base}/data\nmaillog_file = {base}/log/postfix.log\n\
             maillog_file_prefixes = {base}\nmyhostname = relay.example\nmydestination =\n\
             mynetworks =\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nalias_maps =\n\
             smtpd_tls_cert_file = {base}/cert.pem\nsmtpd_tls_key_file = {base}/key.pem\n\
             smtpd_sasl_type = dovecot\nsmtpd_sasl_path = {base}/run/auth\n\
             smtpd_sasl_auth_enable = yes\nsmtpd_tls_auth_only = yes\n\
             smtpd_relay_restrictions = permit_sasl_authenticated, reject\n\
             smtpd_recipient_restrictions = check_recipient_access inline:{{ \
             {{ later@contoso.test = 450 4.2.0 greylisted }}, \
             {{ nobody@contoso.test = 550 5.1.1 no such person }} }}, \
             permit_sasl_authenticated, reject\n\
             header_checks = regexp:{base}/postfix/refused\n\
             virtual_mailbox_domains = contoso.test\n\
             virtual_mailbox_maps = inline:{{ {{ ada@contoso.test = ada/ }} }}\n\
             virtual_mailbox_base = {base}/mail\nvirtual_minimum_uid = 100\n\
             virtual_uid_maps = static:{NOBODY}\nvirtual_gid_maps = static:{NOBODY}\n\
             smtpd_client_connection_count_limit = 3\nsmtpd_client_event_limit_exceptions =\n\
             smtpd_client_message_rate_limit = {a_minute}\nrecipient_delimiter = +\n"
        );
        fs::write(self.at("postfix/main.cf"), main).expect("main.cf");
        let refused = "/^Subject: .*Unwelcome/ REJECT 5.7.1 unwelcome\n";
        fs::write(self.at("postfix/refused"), refused).expect("a table");
        fs::write(self.at("postfix/master.cf"), self.services()).expect("master.cf");
        let sign_in = format!(
            "base_dir = {base}/run\nlog_path = {base}/log/dovecot.log\nprotocols =\nssl = no\n\
             disable_plaintext_auth = no\nauth_mechanisms = plain login\n\
             default_internal_user = dovecot\ndefault_login_user = dovenull\n\
             passdb {{\n driver = static\n args = password=right\n}}\n\
             userdb {{\n driver = static\n args = uid={NOBODY} gid={NOBODY} home=/nonexistent\n}}\n\
             service auth {{\n unix_listener {base}/run/auth {{\n mode = 0666\n }}\n}}\n\
             service stats {{\n unix_listener stats-writer {{\n mode = 0666\n }}\n}}\n"
        );
        fs::write(self.at("dovecot/dovecot.conf"), sign_in).expect("dovecot.conf");
    }

    fn services(&self) -> String {
        let mut services = format!(
            "127.0.0.1:{} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt\n\
             127.0.0.1:{} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\n\
             pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\n\
             qmgr unix n - n 300 1 qmgr\ntlsmgr unix - - n 1000? 1 tlsmgr\n\
             rewrite unix - - n - - trivial-rewrite\npostlog unix-dgram n - n - 1 postlogd\n\
             virtual unix - n n - - virtual\n",
            self.submission, self.implicit
        );
        for name in ["bounce", "defer", "trace"] {
            let _ = writeln!(services, "{name} unix - - n - 0 bounce");
        }
        for (name, processes, daemon) in [
            ("verify", "1", "verify"),
            ("flush", "0", "flush"),
            ("proxymap", "-", "proxymap"),
            ("smtp", "-", "smtp"),
            ("error", "-", "error"),
            ("retry", "-", "error"),
            ("discard", "-", "discard"),
            ("anvil", "1", "anvil"),
            ("scache", "1", "scache"),
        ] {
            let _ = writeln!(services, "{name} unix - - n - {processes} {daemon}");
        }
        services
    }

    fn dovecot(&self, more: &[&str]) {
        let configuration = self.at("dovecot/dovecot.conf");
        let mut command = quiet("/usr/sbin/dovecot");
        let status = command.arg("-c").arg(configuration).args(more).status();
        if more.is_empty() {
            let log = fs::read_to_string(self.at("log/dovecot.log")).unwrap_or_default();
            assert!(status.expect("Dovecot").success(), "Dovecot did not start: {log}");
            until("Dovecot listens", || self.at("run/auth").exists());
        }
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // Whatever of it does not run cannot be stopped; nothing else depends on it.
        let _ = quiet("/usr/sbin/postfix").arg("-c").arg(self.at("postfix")).arg("stop").status();
        self.dovecot(&["stop"]);
    }
}

/// A command whose daemons keep none of our pipes open.
fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn id_of(user: &str) -> u32 {
    let output = Command::new("id").args(["-u", user]).output().expect("id");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a user's id")
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
