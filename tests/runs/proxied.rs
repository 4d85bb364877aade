//! Promises that a proxy leads to Graph and reads nothing, whether it wants TLS itself or not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_rustls::TlsAcceptor;

use crate::support::certificates::certify;
use crate::support::proxy::{Proxy, Ways};
use crate::support::site::{Site, Started};

#[test]
fn a_proxy_leads_to_graph_and_reads_nothing() {
    for (scheme, protocols) in [("http", ["h2"]), ("https", ["h2"]), ("http", ["http/1.1"])] {
        let site = Site::over_tls(3, &protocols, |_| {});
        let target = site.served.port();
        let tls = if scheme == "https" { site.served.tls() } else { None };
        let proxy = site.block_on(Proxy::start(Ways { target, tls, ..Ways::default() }));
        let url = format!("{scheme}://ada:p%40ss@localhost:{}", proxy.port);
        let mut run = site.tapwave(&site.run_args(&["-vv"]));
        let told = run.env("HTTPS_PROXY", &url).output().expect("started");
        assert!(told.status.success(), "{told:?}");
        site.assert_whole(scheme);
        let asked = proxy.asked().clone();
        let place = format!("localhost:{target}");
        let login = STANDARD.encode("ada:p@ss");
        assert!(!asked.is_empty());
        for head in &asked {
            assert!(head.starts_with(&format!("CONNECT {place} HTTP/1.1\r\n")), "{head}");
            let lower = head.to_ascii_lowercase();
            let shown =
                format!("\r\nproxy-authorization: basic {}\r\n", login.to_ascii_lowercase());
            assert!(lower.contains(&shown), "{head}");
            assert!(lower.contains("\r\nuser-agent: tapwave/"), "{head}");
        }
    }
}

#[test]
fn a_proxys_answer_is_reported_without_its_password() {
    let site = Site::over_tls(3, &["h2"], |_| {});
    let elsewhere = tempfile::tempdir().expect("a folder");
    let unknown = Some(TlsAcceptor::from(certify(elsewhere.path(), false)));
    let negotiate = Some("407 No\r\nProxy-Authenticate: Negotiate");
    for (scheme, refuses, tls, words) in [
        ("http", negotiate, None, "asks for a sign-in with Negotiate"),
        ("https", negotiate, site.served.tls(), "asks for a sign-in with Negotiate"),
        ("https", Some("403 No"), site.served.tls(), "have it let that through"),
        ("https", None, unknown, "is not trusted here: invalid peer certificate"),
        ("http", Some("502 Bad Gateway"), None, "answered 502"),
    ] {
        let proxy = site.block_on(Proxy::start(Ways { refuses, tls, ..Ways::default() }));
        let url = format!("{scheme}://ada:hunter2@localhost:{}", proxy.port);
        let mut check = site.tapwave(&["policy", "show"]);
        check.env("HTTPS_PROXY", &url);
        let told = site.end_as_time_passes(Started::of(check));
        let named = format!("the proxy localhost:{}", proxy.port);
        assert!(told.code != Some(0) && told.err.contains(&named), "{told:?}");
        assert!(told.err.contains(words) && !told.err.contains("hunter2"), "{told:?}");
    }
    assert_eq!(site.requests(), 0);
}
