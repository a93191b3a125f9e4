import Testing

@testable import Bytes

@Suite("times as text")
struct TimeTests {
    /// By `date -u -d @SECONDS +%FT%TZ`.
    @Test("are what the calendar says", arguments: [
        (0, "1970-01-01T00:00:00Z"), (-1, "1969-12-31T23:59:59Z"), (951_782_400, "2000-02-29T00:00:00Z"), (4_107_542_399, "2100-02-28T23:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"), (1_795_440_000, "2026-11-23T13:20:00Z"), (253_402_300_799, "9999-12-31T23:59:59Z"), (-11_676_096_000, "1600-01-01T00:00:00Z"),
    ])
    func text(seconds: Int64, text: String) { #expect(utcTime(seconds) == text) }
}
