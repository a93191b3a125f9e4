/// A time in UTC as RFC 3339 writes it, without fractions of a second.
/// - Parameter seconds: since 1970, in the years 0 to 9999
public func utcTime(_ seconds: Int64) -> String {
    let (day, second) = (floorDivided(seconds, 86400), seconds - floorDivided(seconds, 86400) * 86400)
    // Years are counted from March, so that the leap day is the last: 400 of them have 146097 days.
    let shifted = day + 719_468
    let era = floorDivided(shifted, 146_097)
    let dayOfEra = shifted - era * 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let fromMarch = (5 * dayOfYear + 2) / 153
    let month = fromMarch < 10 ? fromMarch + 3 : fromMarch - 9
    let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    func digits(_ value: Int64, _ count: Int) -> String {
        let text = String(value)
        return String(repeating: "0", count: max(0, count - text.count)) + text
    }
    return "\(digits(year, 4))-\(digits(month, 2))-\(digits(dayOfYear - (153 * fromMarch + 2) / 5 + 1, 2))"
        + "T\(digits(second / 3600, 2)):\(digits(second / 60 % 60, 2)):\(digits(second % 60, 2))Z"
}

private func floorDivided(_ value: Int64, _ divisor: Int64) -> Int64 { value >= 0 ? value / divisor : -((-value - 1) / divisor) - 1 }
