//! HQ's address as a person writes it.

use crate::error::SiteError;

/// Refuses what is no `HOST` or `HOST:PORT`, and says what it is. Where no port is given, it is the
/// sites' usual one.
pub fn check_address(said: &str) -> Result<(), SiteError> {
    let wrong = |why: &str| {
        let port = rollcall_wire::SITES_PORT;
        Err(SiteError::Usage(format!("--hq {said}: {why}; write HOST:PORT, such as hq.example.com:{port}")))
    };
    if said.contains("://") {
        return wrong("that is a web address. Sites call HQ's port for sites, not a page");
    }
    if said.trim().is_empty()
        || said.contains(|character: char| character.is_whitespace() || "/@?#".contains(character))
    {
        return wrong("that is no host and port");
    }
    let Some((host, port)) = said.rsplit_once(':').filter(|_| !said.ends_with(']')) else { return Ok(()) };
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return wrong("an IPv6 address is written in brackets");
    }
    match port.parse::<u16>() {
        Ok(1..) if !host.is_empty() => Ok(()),
        _ => wrong("that is no port between 1 and 65535 behind a host"),
    }
}

/// The address with its port, also where a person left it out.
pub(crate) fn with_port(address: &str) -> String {
    let has_port = !address.ends_with(']') && address.rsplit_once(':').is_some_and(|(host, _)| !host.is_empty());
    if has_port { address.to_owned() } else { format!("{address}:{}", rollcall_wire::SITES_PORT) }
}

#[cfg(test)]
mod tests {
    use super::{check_address, with_port};

    #[test]
    fn an_error_names_the_port_that_nobody_wrote() {
        let port = rollcall_wire::SITES_PORT;
        assert_eq!(with_port("hq"), format!("hq:{port}"));
        assert_eq!(with_port("[::1]"), format!("[::1]:{port}"));
        assert_eq!((with_port("hq:1"), with_port("[::1]:1")), ("hq:1".to_owned(), "[::1]:1".to_owned()));
    }

    #[test]
    fn an_address_is_a_host_with_a_port_or_without() {
        for right in ["hq", "hq:7400", "10.1.2.3:7400", "[::1]:7400", "[::1]", "hq.example.com"] {
            assert!(check_address(right).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "http://hq:7480",
            "https://hq",
            "hq:",
            "hq:http",
            "hq:0",
            "hq:70000",
            ":7400",
            "::1",
            "hq/x",
            "me@hq:1",
            "h q",
        ] {
            let said = check_address(wrong).expect_err(wrong).to_string();
            assert!(said.contains("HOST:PORT"), "{said}");
        }
    }
}
