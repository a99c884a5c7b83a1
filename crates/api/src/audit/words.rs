//! What a request does, in words: who reads the audit need not know the API.

use axum::http::Method;
use percent_encoding::percent_decode_str;

/// What this request does; the request itself where that is not known.
pub(super) fn in_words(method: &Method, path: &str) -> String {
    let decoded: Vec<String> = path
        .trim_start_matches("/api/")
        .split('/')
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect();
    let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
    known(method.as_str(), &parts).unwrap_or_else(|| format!("{method} {path}"))
}

fn known(method: &str, parts: &[&str]) -> Option<String> {
    Some(match (method, parts) {
        ("POST", ["roster"]) => "import a roster".to_owned(),
        ("PATCH", ["roster", site]) => format!("set attributes of {site}"),
        ("POST", ["roster", site, "invite"]) => format!("invite {site}"),
        ("POST", ["roster", site, "retire"]) => format!("retire {site}"),
        ("POST", ["roster", site, "reinstate"]) => format!("reinstate {site}"),
        ("POST", ["roster", site, "accept-times"]) => format!("answer for the times of {site}"),
        ("POST", ["roster", site, "close"]) => format!("declare {site} closed"),
        ("POST", ["resend"]) => "have sites send everything again".to_owned(),
        ("DELETE", ["invitations", id]) => format!("revoke invitation {id}"),
        ("POST", ["sites", site, "lives", _, what]) => format!("{what} a life of {site}"),
        ("POST", ["incidents", id, "ack"]) => format!("acknowledge incident {id}"),
        ("POST", ["incidents", id, "explain"]) => format!("explain incident {id}"),
        ("PUT", ["channels", name]) => format!("set channel {name}"),
        ("DELETE", ["channels", name]) => format!("remove channel {name}"),
        ("POST", ["channels", name, "test"]) => format!("test channel {name}"),
        ("PUT", ["holidays", name]) => format!("set holiday calendar {name}"),
        ("POST", ["published", table]) => format!("publish {table}"),
        ("POST", ["published", table, version, "withdraw"]) => format!("withdraw version {version} of {table}"),
        ("DELETE", ["scheduled", table, number]) => format!("withdraw scheduled change {number} of {table}"),
        ("POST", ["quarantine", id, "take"]) => format!("take batch {id} from quarantine"),
        ("POST", ["quarantine", id, "give-up"]) => format!("give up batch {id} in quarantine"),
        ("PUT", ["quotas"]) => "set quotas".to_owned(),
        ("PUT", ["settings", rule]) => format!("set rule {rule} for stores' agents"),
        ("DELETE", ["settings", rule]) => format!("remove rule {rule} for stores' agents"),
        ("POST", ["secrets", "ca", "rotate"]) => "begin to replace the certificate authority".to_owned(),
        ("POST", ["secrets", "ca", "finish"]) => "finish replacing the certificate authority".to_owned(),
        ("POST", ["secrets", "operator-token", "rotate"]) => "replace the operator's token".to_owned(),
        ("POST", ["stop"]) => "stop HQ".to_owned(),
        ("PUT", ["tables", table]) => format!("set what is known of table {table}"),
        ("DELETE", ["tables", table]) => format!("forget table {table}"),
        ("PUT", ["tables", table, "key"]) => format!("set the key of table {table}"),
        ("PUT", ["tables", table, "columns", column, "type"]) => format!("set the type of {table}.{column}"),
        ("PUT", ["users", name]) => format!("set user {name}"),
        ("DELETE", ["users", name]) => format!("remove user {name}"),
        ("PUT", ["users", name, "tokens", token]) => format!("make token {token} of user {name}"),
        ("DELETE", ["users", name, "tokens", token]) => format!("remove token {token} of user {name}"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// Every route of this crate that changes something, as its handlers are set up in the source.
    fn changing_routes() -> Vec<(Method, String)> {
        let mut found = Vec::new();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for file in fs::read_dir(sources).expect("readable") {
            let path = file.expect("readable").path();
            if path.extension().is_none_or(|kind| kind != "rs") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("readable");
            for route in text.split(".route(\"").skip(1) {
                let (path, rest) = route.split_once('"').expect("a path");
                let handlers = rest.split(".route(").next().unwrap_or_default().lines().next().unwrap_or_default();
                for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                    if handlers.contains(&format!("{}(", method.as_str().to_lowercase())) {
                        found.push((method, path.to_owned()));
                    }
                }
            }
        }
        found
    }

    #[test]
    fn every_act_has_words() {
        let routes = changing_routes();
        assert!(routes.len() > 30, "{}", routes.len());
        let mute: Vec<String> = routes
            .iter()
            .filter(|(_, path)| path != "/api/sql")
            .map(|(method, path)| in_words(method, &path.replace(['{', '}'], "")))
            .filter(|words| words.contains("/api/"))
            .collect();
        assert_eq!(mute, Vec::<String>::new());
    }

    #[test]
    fn names_are_read_as_they_were_written() {
        assert_eq!(in_words(&Method::PUT, "/api/users/j%C3%BCrgen"), "set user jürgen");
        assert_eq!(in_words(&Method::POST, "/api/nothing"), "POST /api/nothing");
    }
}
