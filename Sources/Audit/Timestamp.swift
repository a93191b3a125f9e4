/// A moment, as records and filters write it: `2026-11-23T12:34:56.123456Z` (RFC 3339, UTC), as microseconds since 1970.
///
/// Records stand in the order of their numbers. Their times are what the clock said, and a clock may be set back.
public struct Timestamp: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let microseconds: Int64

    /// Years 0 to 9999 can be written.
    public static let range: ClosedRange<Int64> = -62_167_219_200_000_000...253_402_300_799_999_999
    /// Bytes of the text.
    static let length = 27

    /// A moment that cannot be written becomes the nearest that can.
    public init(microseconds: Int64) { self.microseconds = min(max(microseconds, Self.range.lowerBound), Self.range.upperBound) }

    public static func < (a: Timestamp, b: Timestamp) -> Bool { a.microseconds < b.microseconds }

    public func advanced(seconds: Int64) -> Timestamp {
        let (step, tooLarge) = seconds.multipliedReportingOverflow(by: 1_000_000)
        let (sum, overflow) = microseconds.addingReportingOverflow(step)
        return Timestamp(microseconds: tooLarge || overflow ? (seconds < 0 ? .min : .max) : sum)
    }

    public var description: String {
        let (day, rest) = Self.divided(microseconds, 86_400_000_000)
        let (year, month, date) = Self.civil(day)
        func digits(_ value: Int64, _ count: Int) -> String {
            let text = String(value)
            return String(repeating: "0", count: max(0, count - text.utf8.count)) + text
        }
        let (seconds, fraction) = rest.quotientAndRemainder(dividingBy: 1_000_000)
        return "\(digits(year, 4))-\(digits(month, 2))-\(digits(date, 2))"
            + "T\(digits(seconds / 3600, 2)):\(digits(seconds / 60 % 60, 2)):\(digits(seconds % 60, 2)).\(digits(fraction, 6))Z"
    }

    /// `2026-11-23`, `2026-11-23T12:34`, `…:56`, `….123`, each with or without `Z`, and with a blank instead of `T`: what is missing is zero. Always UTC.
    public init?(_ text: String) {
        var bytes = Array(text.utf8)[...]
        if bytes.last == UInt8(ascii: "Z") { bytes.removeLast() }
        func number(_ count: Int) -> Int64? {
            guard bytes.count >= count, bytes.prefix(count).allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
            defer { bytes.removeFirst(count) }
            return Int64(String(decoding: bytes.prefix(count), as: UTF8.self))
        }
        func take(_ characters: Unicode.Scalar...) -> Bool {
            guard let first = bytes.first, characters.contains(Unicode.Scalar(first)) else { return false }
            bytes.removeFirst()
            return true
        }
        guard let year = number(4), take("-"), let month = number(2), take("-"), let date = number(2), (1...12).contains(month), date >= 1,
              date <= Self.length(ofMonth: month, year)
        else { return nil }
        var time: Int64 = 0
        if !bytes.isEmpty {
            guard take("T", "t", " "), let hour = number(2), take(":"), let minute = number(2), hour < 24, minute < 60 else { return nil }
            time = (hour * 60 + minute) * 60_000_000
            if take(":") {
                guard let second = number(2), second < 60 else { return nil }
                time += second * 1_000_000
                if take(".") {
                    let count = bytes.count
                    guard (1...6).contains(count), var fraction = number(count) else { return nil }
                    for _ in count..<6 { fraction *= 10 }
                    time += fraction
                }
            }
            guard bytes.isEmpty else { return nil }
        }
        self.init(microseconds: Self.day(year, month, date) * 86_400_000_000 + time)
    }

    // MARK: The Gregorian calendar. Years begin in March, so that a leap day is their last.

    private static let daysOfEra: Int64 = 146_097  // 400 years
    private static let daysBefore1970: Int64 = 719_468  // since 1 March of the year 0

    private static func divided(_ value: Int64, _ divisor: Int64) -> (quotient: Int64, remainder: Int64) {
        let (quotient, remainder) = value.quotientAndRemainder(dividingBy: divisor)
        return remainder < 0 ? (quotient - 1, remainder + divisor) : (quotient, remainder)
    }

    private static func day(_ year: Int64, _ month: Int64, _ date: Int64) -> Int64 {
        let (era, yearOfEra) = divided(month <= 2 ? year - 1 : year, 400)
        let dayOfYear = (153 * ((month + 9) % 12) + 2) / 5 + date - 1
        return era * daysOfEra + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - daysBefore1970
    }

    private static func civil(_ day: Int64) -> (year: Int64, month: Int64, date: Int64) {
        let (era, dayOfEra) = divided(day + daysBefore1970, daysOfEra)
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        let month = shifted < 10 ? shifted + 3 : shifted - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * shifted + 2) / 5 + 1)
    }

    private static func length(ofMonth month: Int64, _ year: Int64) -> Int64 {
        month == 12 ? 31 : day(year, month + 1, 1) - day(year, month, 1)
    }
}
