//! Dates of the Gregorian calendar as counts of days, also before it was introduced. Source: H.
//! Hinnant, "chrono-compatible low-level date algorithms" (days from civil, civil from days).

/// Days from the first of March of the year 0 to 1970-01-01. Counted from there, the leap day is
/// the last of a year.
const MARCH_OF_0: i64 = 719_468;
/// Days of 400 years.
const ERA: i64 = 146_097;

/// Year (0 is 1 BC), month and day of a count of days since 1970-01-01.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + MARCH_OF_0;
    let (era, day_of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Days since 1970-01-01 of a date; the caller knows that there is one.
pub fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * ERA + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - MARCH_OF_0
}

/// How many days a month has.
pub fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Whether a year has a leap day.
pub fn is_leap(year: i64) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_each_others_inverse() {
        assert_eq!((civil(0), civil(-1), civil(-719_528)), ((1970, 1, 1), (1969, 12, 31), (0, 1, 1)));
        let (mut year, mut month, mut day) = (-4713, 1, 1);
        let start = days_of(year, month, day);
        for days in start..start + 3_000_000 {
            assert_eq!(civil(days), (year, month, day));
            assert_eq!(days_of(year, month, day), days);
            day += 1;
            if day > month_length(year, month) {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
