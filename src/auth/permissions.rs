//! Promises to tell, before any call that needs them, which permissions a token lacks.
//!
//! Reads a token's claims, never trusts them: Graph alone decides. What is not recognised
//! is a doubt to be told, never a refusal. Must never keep or print the token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// What a command will do with Graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Create and delete passes.
    WritePasses,
    /// List passes.
    ReadPasses,
    /// Read the policy.
    ReadPolicy,
    /// Change the policy.
    WritePolicy,
    /// Look users up.
    ReadUsers,
    /// Resolve groups and membership.
    ReadGroups,
    /// Send mail through Graph.
    SendMail,
}

impl Need {
    /// The permissions that suffice, least first (Microsoft's reference).
    #[must_use]
    pub const fn sufficient(self) -> &'static [&'static str] {
        match self {
            Self::WritePasses => {
                &["UserAuthMethod-TAP.ReadWrite.All", "UserAuthenticationMethod.ReadWrite.All"]
            }
            Self::ReadPasses => &[
                "UserAuthMethod-TAP.Read.All",
                "UserAuthMethod-TAP.ReadWrite.All",
                "UserAuthenticationMethod.Read.All",
                "UserAuthenticationMethod.ReadWrite.All",
            ],
            Self::ReadPolicy => &[
                "Policy.Read.AuthenticationMethod",
                "Policy.Read.All",
                "Policy.ReadWrite.AuthenticationMethod",
            ],
            Self::WritePolicy => &["Policy.ReadWrite.AuthenticationMethod"],
            Self::ReadUsers => &[
                "User.Read.All",
                "User.ReadWrite.All",
                "Directory.Read.All",
                "Directory.ReadWrite.All",
            ],
            Self::ReadGroups => &[
                "GroupMember.Read.All",
                "Group.Read.All",
                "GroupMember.ReadWrite.All",
                "Group.ReadWrite.All",
                "Directory.Read.All",
                "Directory.ReadWrite.All",
            ],
            Self::SendMail => &["Mail.Send"],
        }
    }

    /// The one to ask an administrator for.
    #[must_use]
    pub const fn least(self) -> &'static str {
        self.sufficient()[0]
    }
}

/// What a token says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grants {
    /// An application's: `roles`.
    Application(Claims),
    /// A person's, through an app: `scp`.
    Delegated(Claims),
    /// Not a JWT, or one without either claim: used as it is.
    Opaque,
}

/// The claims that matter, all of them public.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims {
    /// The permissions.
    pub permissions: Vec<String>,
    /// The tenant's id.
    pub tenant: Option<String>,
    /// The account or the application, for people.
    pub who: Option<String>,
}

impl Grants {
    /// Reads a token's claims.
    #[must_use]
    pub fn read(token: &str) -> Self {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Payload {
            roles: Option<Vec<String>>,
            scp: Option<String>,
            tid: Option<String>,
            upn: Option<String>,
            app_displayname: Option<String>,
            appid: Option<String>,
        }
        let mut parts = token.split('.');
        let (Some(_), Some(payload), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Self::Opaque;
        };
        let payload = URL_SAFE_NO_PAD
            .decode(payload.trim_end_matches('='))
            .ok()
            .and_then(|json| serde_json::from_slice::<Payload>(&json).ok())
            .unwrap_or_default();
        let claims = |permissions| Claims {
            permissions,
            tenant: payload.tid.clone(),
            who: payload
                .upn
                .clone()
                .or_else(|| payload.app_displayname.clone())
                .or_else(|| payload.appid.clone()),
        };
        match (&payload.roles, &payload.scp) {
            (_, Some(scopes)) => {
                Self::Delegated(claims(scopes.split(' ').map(ToOwned::to_owned).collect()))
            }
            (Some(roles), None) => Self::Application(claims(roles.clone())),
            // An application without a single role carries neither claim.
            (None, None) if payload.appid.is_some() && payload.tid.is_some() => {
                Self::Application(claims(Vec::new()))
            }
            (None, None) => Self::Opaque,
        }
    }

    /// What is lacking for `needs`: nothing is known to be lacking in an opaque token.
    #[must_use]
    pub fn lacking(&self, needs: &[Need]) -> Vec<Need> {
        let Some(claims) = self.claims() else { return Vec::new() };
        let holds = |need: &Need| {
            need.sufficient()
                .iter()
                .any(|name| claims.permissions.iter().any(|held| held.eq_ignore_ascii_case(name)))
        };
        needs.iter().filter(|need| !holds(need)).copied().collect()
    }

    /// The claims, if the token has any.
    #[must_use]
    pub const fn claims(&self) -> Option<&Claims> {
        match self {
            Self::Application(claims) | Self::Delegated(claims) => Some(claims),
            Self::Opaque => None,
        }
    }

    /// `application`, `delegated` or `opaque`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Application(_) => "application",
            Self::Delegated(_) => "delegated",
            Self::Opaque => "opaque",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &serde_json::Value) -> String {
        format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(payload.to_string()))
    }

    #[test]
    fn what_is_lacking_is_named_least_privileged_first() {
        let grants = Grants::read(&token(&serde_json::json!({
            "roles": ["User.Read.All", "Policy.Read.All"], "tid": "t", "appid": "a"
        })));
        assert_eq!(grants.kind(), "application");
        let needs = [Need::WritePasses, Need::ReadPolicy, Need::ReadUsers];
        let lacking: Vec<_> = grants.lacking(&needs).iter().map(|need| need.least()).collect();
        assert_eq!(lacking, ["UserAuthMethod-TAP.ReadWrite.All"]);
    }

    #[test]
    fn a_wider_permission_suffices() {
        let grants = Grants::read(&token(&serde_json::json!({
            "scp": "UserAuthenticationMethod.ReadWrite.All Directory.Read.All", "upn": "ada@contoso.example"
        })));
        assert_eq!(grants.kind(), "delegated");
        let needs = [Need::WritePasses, Need::ReadPasses, Need::ReadUsers, Need::ReadGroups];
        assert!(grants.lacking(&needs).is_empty());
    }

    #[test]
    fn an_opaque_token_lacks_nothing_that_we_know_of() {
        for opaque in ["", "abc", "a.b.c", "a.b.c.d", "e30.e30.sig"] {
            assert_eq!(Grants::read(opaque), Grants::Opaque, "{opaque:?}");
            assert!(Grants::read(opaque).lacking(&[Need::WritePasses]).is_empty());
        }
    }
}
