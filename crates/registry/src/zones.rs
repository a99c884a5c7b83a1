//! Which time zone a place has, where its country or state has only one.

/// Countries (ISO 3166, two letters) that lie in one zone.
const COUNTRIES: [(&str, &str); 40] = [
    ("AE", "Asia/Dubai"),
    ("AT", "Europe/Vienna"),
    ("BE", "Europe/Brussels"),
    ("BG", "Europe/Sofia"),
    ("CH", "Europe/Zurich"),
    ("CN", "Asia/Shanghai"),
    ("CO", "America/Bogota"),
    ("CY", "Asia/Nicosia"),
    ("CZ", "Europe/Prague"),
    ("DE", "Europe/Berlin"),
    ("DK", "Europe/Copenhagen"),
    ("EE", "Europe/Tallinn"),
    ("EG", "Africa/Cairo"),
    ("FI", "Europe/Helsinki"),
    ("FR", "Europe/Paris"),
    ("GB", "Europe/London"),
    ("GR", "Europe/Athens"),
    ("HK", "Asia/Hong_Kong"),
    ("HR", "Europe/Zagreb"),
    ("HU", "Europe/Budapest"),
    ("IE", "Europe/Dublin"),
    ("IL", "Asia/Jerusalem"),
    ("IN", "Asia/Kolkata"),
    ("IT", "Europe/Rome"),
    ("JP", "Asia/Tokyo"),
    ("KR", "Asia/Seoul"),
    ("LT", "Europe/Vilnius"),
    ("LU", "Europe/Luxembourg"),
    ("LV", "Europe/Riga"),
    ("NL", "Europe/Amsterdam"),
    ("NO", "Europe/Oslo"),
    ("PL", "Europe/Warsaw"),
    ("RO", "Europe/Bucharest"),
    ("SE", "Europe/Stockholm"),
    ("SG", "Asia/Singapore"),
    ("SI", "Europe/Ljubljana"),
    ("SK", "Europe/Bratislava"),
    ("TR", "Europe/Istanbul"),
    ("ZA", "Africa/Johannesburg"),
    ("TW", "Asia/Taipei"),
];

/// States of the USA that lie in one zone; those that are divided are left out.
const STATES: [(&str, &str); 36] = [
    ("AL", "America/Chicago"),
    ("AR", "America/Chicago"),
    ("CA", "America/Los_Angeles"),
    ("CO", "America/Denver"),
    ("CT", "America/New_York"),
    ("DC", "America/New_York"),
    ("DE", "America/New_York"),
    ("GA", "America/New_York"),
    ("HI", "Pacific/Honolulu"),
    ("IA", "America/Chicago"),
    ("IL", "America/Chicago"),
    ("LA", "America/Chicago"),
    ("MA", "America/New_York"),
    ("MD", "America/New_York"),
    ("ME", "America/New_York"),
    ("MN", "America/Chicago"),
    ("MO", "America/Chicago"),
    ("MS", "America/Chicago"),
    ("MT", "America/Denver"),
    ("NC", "America/New_York"),
    ("NH", "America/New_York"),
    ("NJ", "America/New_York"),
    ("NM", "America/Denver"),
    ("NY", "America/New_York"),
    ("OH", "America/New_York"),
    ("OK", "America/Chicago"),
    ("PA", "America/New_York"),
    ("RI", "America/New_York"),
    ("SC", "America/New_York"),
    ("UT", "America/Denver"),
    ("VA", "America/New_York"),
    ("VT", "America/New_York"),
    ("WA", "America/Los_Angeles"),
    ("WI", "America/Chicago"),
    ("WV", "America/New_York"),
    ("WY", "America/Denver"),
];

/// The zone of a place; none where it is not the only one.
pub(crate) fn zone_of(country: Option<&str>, state: Option<&str>) -> Option<&'static str> {
    let find = |table: &[(&str, &'static str)], code: &str| {
        table.iter().find(|(known, _)| known.eq_ignore_ascii_case(code.trim())).map(|(_, zone)| *zone)
    };
    match country.map(str::trim) {
        Some(country) if country.eq_ignore_ascii_case("US") || country.eq_ignore_ascii_case("USA") => {
            state.and_then(|state| find(&STATES, state))
        }
        Some(country) => find(&COUNTRIES, country),
        None => state.and_then(|state| find(&STATES, state)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_zone_is_one_and_a_divided_place_has_none() {
        for (_, zone) in COUNTRIES.iter().chain(&STATES) {
            assert!(zone.parse::<chrono_tz::Tz>().is_ok(), "{zone}");
        }
        assert_eq!(zone_of(Some("de"), Some("WA")), Some("Europe/Berlin"));
        assert_eq!(zone_of(None, Some("wa")), Some("America/Los_Angeles"));
        assert_eq!(zone_of(Some("US"), Some("TX")), None, "El Paso has another");
        assert_eq!(zone_of(Some("AU"), None), None);
    }
}
