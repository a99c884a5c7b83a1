//! `to_date` and `to_timestamp` of a text by a pattern.

use datafusion::common::{Result, exec_err};

use super::{
    calendar::{Civil, DAY, HOUR, JULIAN_1970, MINUTE, SECOND, civil, days, is_leap, monday, month_length},
    function::Call,
    pattern::{DAYS, Field, MONTHS, Part, ROMAN_MONTHS, is_separator, parts},
    value::Value,
    zone::Zone,
};

/// The fields that were read; by name, since each may be read once only.
#[derive(Default)]
struct Read {
    values: Vec<(&'static str, i64)>,
    /// How many digits the pattern gives the year.
    year_digits: usize,
    iso: Option<bool>,
    zone_sign: i64,
}

impl Read {
    fn get(&self, name: &str) -> i64 {
        self.has(name).unwrap_or(0)
    }

    fn has(&self, name: &str) -> Option<i64> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn set(&mut self, name: &'static str, value: i64, field: &Field) -> Result<()> {
        match self.has(name) {
            Some(before) if before != value => {
                exec_err!("conflicting values for \"{}\" field in formatting string", field.written)
            }
            Some(_) => Ok(()),
            None => {
                self.values.push((name, value));
                Ok(())
            }
        }
    }

    fn set_convention(&mut self, field: &Field) -> Result<()> {
        let iso = match field.name {
            "IYYY" | "IYY" | "IY" | "I" | "IW" | "IDDD" | "ID" => true,
            "YYYY" | "YYY" | "YY" | "Y" | "Y,YYY" | "MONTH" | "MON" | "MM" | "RM" | "DD" | "DDD" | "D" | "DAY"
            | "DY" | "WW" | "W" | "J" | "CC" => false,
            _ => return Ok(()),
        };
        // Names of days go with both.
        if matches!(field.name, "DAY" | "DY" | "CC" | "J") {
            return Ok(());
        }
        if self.iso.is_some_and(|before| before != iso) {
            return exec_err!("invalid combination of date conventions");
        }
        self.iso = Some(iso);
        Ok(())
    }
}

/// A text that is read from its beginning on.
struct Source<'a> {
    rest: &'a str,
    /// Spaces that were passed over and that the pattern did not ask for.
    skipped: i64,
    last: char,
}

impl Source<'_> {
    fn step(&mut self) -> bool {
        let Some(letter) = self.rest.chars().next() else { return false };
        self.rest = &self.rest[letter.len_utf8()..];
        self.last = letter;
        true
    }

    fn next(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn skip_spaces(&mut self) -> i64 {
        let mut count = 0;
        while self.next().is_some_and(|letter| letter.is_ascii_whitespace()) {
            self.step();
            count += 1;
        }
        count
    }

    /// A number of at most this many letters, and how many it had; of exactly so many if a digit
    /// may come next.
    fn number(&mut self, field: &Field, width: usize, exact: bool) -> Result<(i64, usize)> {
        self.skip_spaces();
        let start = self.rest;
        let most = if exact { width } else { usize::MAX };
        let signed = usize::from(start.starts_with(['+', '-']));
        let digits =
            start[signed..].bytes().take(most.saturating_sub(signed).min(18)).take_while(u8::is_ascii_digit).count();
        let used = if digits == 0 { 0 } else { signed + digits };
        let shown: String = start.chars().take(width).collect();
        if exact && shown.chars().count() < width {
            return exec_err!("source string too short for \"{}\" formatting field", field.written);
        }
        if used == 0 || (exact && used < width) {
            return exec_err!("invalid value \"{shown}\" for \"{}\"", field.written);
        }
        let Ok(number) = start[..used].trim_start_matches('+').parse::<i64>() else {
            return exec_err!("invalid value \"{shown}\" for \"{}\"", field.written);
        };
        self.rest = &start[used..];
        if i32::try_from(number).is_err() {
            return exec_err!("value for \"{}\" in source string is out of range", field.written);
        }
        Ok((number, used))
    }

    /// The place of one of these names, whatever its letters' case.
    fn name(&mut self, field: &Field, names: &[&str]) -> Result<i64> {
        let found = names
            .iter()
            .position(|name| self.rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)));
        match found {
            Some(place) => {
                self.rest = &self.rest[names[place].len()..];
                Ok(place as i64)
            }
            None => {
                let shown: String = self.rest.chars().take_while(|letter| !letter.is_whitespace()).collect();
                exec_err!("invalid value \"{shown}\" for \"{}\"", field.written)
            }
        }
    }
}

/// Whether what follows a field ends its number.
fn is_ended(field: &Field, next: Option<&Part>) -> bool {
    field.ordinal.is_some()
        || match next {
            None => true,
            Some(Part::Field(next)) => !next.is_number(),
            Some(Part::Letter(letter)) => !letter.is_ascii_digit(),
            Some(_) => true,
        }
}

fn read(source: &str, parts: &[Part]) -> Result<Read> {
    let mut read = Read::default();
    let mut source = Source { rest: source, skipped: 0, last: ' ' };
    let mut fixed = false;
    for (place, part) in parts.iter().enumerate() {
        if source.rest.is_empty() {
            break;
        }
        if !fixed && (place == 0 || matches!(part, Part::Field(_))) {
            source.skipped += source.skip_spaces();
        }
        match part {
            Part::Separator(_) | Part::Space(_) if fixed => {
                source.step();
            }
            Part::Separator(_) | Part::Space(_) => {
                source.skipped -= 1;
                if source.next().is_some_and(|letter| letter.is_ascii_whitespace() || is_separator(letter)) {
                    source.step();
                    source.skipped += 1;
                }
            }
            Part::Letter(_) if !fixed && source.skipped > 0 => source.skipped -= 1,
            Part::Letter(_) => {
                source.step();
            }
            Part::Field(field) if field.name == "FX" => fixed = true,
            Part::Field(field) => {
                read.set_convention(field)?;
                let exact = field.fill && !is_ended(field, parts.get(place + 1));
                read_field(&mut read, &mut source, field, exact)?;
                if field.ordinal.is_some() {
                    source.step();
                    source.step();
                }
                if !fixed {
                    source.skipped = source.skip_spaces();
                }
            }
        }
    }
    Ok(read)
}

fn read_field(read: &mut Read, source: &mut Source<'_>, field: &Field, exact: bool) -> Result<()> {
    let names = |full: &[&'static str]| full.iter().map(|name| &name[..3]).collect::<Vec<_>>();
    match field.name {
        "AM" => read.set("PM", source.name(field, &["am", "pm"])?, field),
        "AM." => read.set("PM", source.name(field, &["a.m.", "p.m."])?, field),
        "BC" => read.set("BC", source.name(field, &["ad", "bc"])?, field),
        "BC." => read.set("BC", source.name(field, &["a.d.", "b.c."])?, field),
        "MONTH" => read.set("MM", source.name(field, &MONTHS)? + 1, field),
        "MON" => read.set("MM", source.name(field, &names(&MONTHS))? + 1, field),
        "DAY" => read.set("D", source.name(field, &DAYS)? + 1, field),
        "DY" => read.set("D", source.name(field, &names(&DAYS))? + 1, field),
        "RM" => {
            let reversed: Vec<&str> = ROMAN_MONTHS.into_iter().collect();
            let mut longest = reversed.clone();
            longest.sort_by_key(|name| std::cmp::Reverse(name.len()));
            let found = longest[source.name(field, &longest)? as usize];
            read.set("MM", reversed.iter().position(|name| *name == found).map_or(0, |place| place as i64 + 1), field)
        }
        "TZ" | "OF" => exec_err!("formatting field \"{}\" is only supported in to_char", field.written),
        "TZH" => {
            read.zone_sign = match source.next() {
                Some(sign @ ('+' | '-' | ' ')) => {
                    source.step();
                    if sign == '-' { -1 } else { 1 }
                }
                _ if source.skipped > 0 && source.last == '-' => -1,
                _ => 1,
            };
            let hours = source.number(field, 2, exact)?.0;
            read.set("TZH", hours, field)
        }
        "Q" => source.number(field, 1, exact).map(|_| ()),
        _ => read_number(read, source, field, exact),
    }
}

fn read_number(read: &mut Read, source: &mut Source<'_>, field: &Field, exact: bool) -> Result<()> {
    let width = match field.name {
        "HH12" | "HH24" | "MI" | "SS" | "MM" | "DD" | "WW" | "IW" | "CC" | "TZM" | "YY" | "IY" => 2,
        "MS" | "DDD" | "IDDD" | "YYY" | "IYY" => 3,
        "YYYY" | "IYYY" => 4,
        "US" => 6,
        "D" | "ID" | "W" | "Y" | "I" => 1,
        "J" | "SSSS" => {
            let (number, _) = source.number(field, 18, false)?;
            return read.set(field.name, number, field);
        }
        "Y,YYY" => {
            let (thousands, _) = source.number(field, 9, false)?;
            if source.next() != Some(',') {
                return exec_err!("invalid input string for \"Y,YYY\"");
            }
            source.step();
            let (rest, _) = source.number(field, 3, false)?;
            read.year_digits = 4;
            return read.set("YYYY", thousands * 1000 + rest, field);
        }
        part => part[2..].parse().unwrap_or(6),
    };
    let (mut number, used) = source.number(field, width, exact)?;
    if matches!(field.name, "MS" | "US") || field.name.starts_with("FF") {
        let whole = if field.name == "MS" { 3 } else { 6 };
        number *= 10i64.pow(u32::try_from(whole - used.min(whole)).unwrap_or(0));
        let name = if field.name == "MS" { "MS" } else { "US" };
        return read.set(name, number, field);
    }
    match field.name {
        "YYYY" | "IYYY" => read.year_digits = 4,
        "YYY" | "IYY" | "YY" | "IY" | "Y" | "I" => {
            read.year_digits = width;
            if used < 4 {
                number = near_2020(number);
            }
        }
        "HH12" => read.values.push(("CLOCK12", 1)),
        // Sunday is 1 where Monday was.
        "ID" => return read.set("D", if number >= 7 { 1 } else { number + 1 }, field),
        "TZM" if read.zone_sign == 0 => read.zone_sign = 1,
        _ => {}
    }
    let name = match field.name {
        "HH12" | "HH24" => "HH",
        "YYYY" | "YYY" | "YY" | "Y" | "IYYY" | "IYY" | "IY" | "I" => "YYYY",
        "IW" => "WW",
        "IDDD" => "DDD",
        name => name,
    };
    read.set(name, number, field)
}

/// A year of which the first digits are missing: the one that is nearest to 2020.
fn near_2020(year: i64) -> i64 {
    match year {
        0..70 => year + 2000,
        70..100 => year + 1900,
        100..520 => year + 2000,
        520..1000 => year + 1000,
        _ => year,
    }
}

fn year_of(read: &Read) -> i64 {
    let before_christ = read.get("BC") == 1;
    let century = if before_christ { -read.get("CC") } else { read.get("CC") };
    match (read.get("YYYY"), century) {
        (0, 0) => 0,
        (0, century) if century > 0 => (century - 1) * 100 + 1,
        (0, century) => century * 100 + 1,
        (year, century) if century != 0 && read.year_digits <= 2 => match (year % 100, century >= 0) {
            (0, true) => century * 100,
            (0, false) => century * 100 + 1,
            (year, true) => year + (century - 1) * 100,
            (year, false) => (century + 1) * 100 - year + 1,
        },
        (year, _) => {
            let year = if before_christ { -year } else { year };
            if year < 0 { year + 1 } else { year }
        }
    }
}

/// The date and time that was read, and its distance from UTC in seconds if there was one.
fn moment(read: &Read, source: &str) -> Result<(Civil, Option<i32>)> {
    let out_of_range = || exec_err!("date/time field value out of range: \"{source}\"");
    let is_iso = read.iso == Some(true);
    let mut year = year_of(read);
    let (mut month, mut day, mut of_year) = (1, 1, read.has("DDD"));
    if let Some(julian) = read.has("J") {
        (year, month, day) = civil(julian - JULIAN_1970);
    }
    if let Some(week) = read.has("WW").filter(|week| *week != 0) {
        if is_iso {
            // Sunday is 1, and the last day of its week.
            let weekday = read.has("D").map_or(0, |day| if day > 1 { day - 2 } else { 6 });
            (year, month, day) = civil(monday(year, week) + weekday);
        } else {
            of_year = Some((week - 1) * 7 + 1);
        }
    }
    if let Some(week) = read.has("W").filter(|week| *week != 0) {
        day = (week - 1) * 7 + 1;
    }
    day = read.has("DD").filter(|day| *day != 0).unwrap_or(day);
    month = read.has("MM").filter(|month| *month != 0).unwrap_or(month);
    if let Some(of_year) = of_year.filter(|of_year| *of_year != 0 && (month <= 1 || day <= 1)) {
        if is_iso {
            (year, month, day) = civil(monday(year, 1) + of_year - 1);
        } else {
            if year == 0 && read.get("BC") == 0 {
                return exec_err!("cannot calculate day of year without year information");
            }
            if !(1..=365 + i64::from(is_leap(year))).contains(&of_year) {
                return out_of_range();
            }
            (_, month, day) = civil(days(year, 1, 1) + of_year - 1);
        }
    }
    if !(1..=12).contains(&month) || day < 1 || day > month_length(year, month) || !(-4713..=294_276).contains(&year) {
        return out_of_range();
    }
    let time = time_of(read, source)?;
    let zone = match read.zone_sign {
        0 => None,
        sign => {
            let (hours, minutes) = (read.get("TZH"), read.get("TZM"));
            if hours > 15 || minutes > 59 {
                return out_of_range();
            }
            Some((sign * (hours * 3600 + minutes * 60)) as i32)
        }
    };
    Ok((Civil { year, month, day, time }, zone))
}

fn time_of(read: &Read, source: &str) -> Result<i64> {
    let of_day = read.get("SSSS");
    let (mut hour, mut minute, mut second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    hour = read.has("HH").unwrap_or(hour);
    minute = read.has("MI").unwrap_or(minute);
    second = read.has("SS").unwrap_or(second);
    if read.has("CLOCK12").is_some() || read.has("PM").is_some() {
        if !(1..=12).contains(&hour) {
            return exec_err!("hour \"{hour}\" is invalid for the 12-hour clock");
        }
        hour = hour % 12 + 12 * read.get("PM");
    }
    if !(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0..60).contains(&second) {
        return exec_err!("date/time field value out of range: \"{source}\"");
    }
    Ok(hour * HOUR + minute * MINUTE + second * SECOND + read.get("MS") * 1000 + read.get("US"))
}

pub(super) fn to_timestamp<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let source = arguments[0].str()?;
    let (at, east) = moment(&read(source, &parts(arguments[1].str()?)?)?, source)?;
    let zone = east.map_or(call.zone, Zone::fixed);
    Ok(Value::Timestamptz(zone.to_utc(at.micros())))
}

pub(super) fn to_date<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let source = arguments[0].str()?;
    let (at, _) = moment(&read(source, &parts(arguments[1].str()?)?)?, source)?;
    Ok(Value::Date((at.micros().div_euclid(DAY)) as i32))
}
