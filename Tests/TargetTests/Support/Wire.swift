/// PDUs as an initiator writes and reads them: written for the tests, sharing nothing with the target's own code.
struct PDU {
    var header: [UInt8]
    var data: [UInt8] = []

    init(opcode: UInt8, flags: UInt8 = 0x80, immediate: Bool = false, itt: UInt32 = 0xffff_ffff) {
        header = [UInt8](repeating: 0, count: 48)
        header[0] = opcode | (immediate ? 0x40 : 0)
        header[1] = flags
        set32(16, itt)
    }

    init(header: [UInt8], data: [UInt8]) {
        self.header = header
        self.data = data
    }

    var opcode: UInt8 { header[0] & 0x3f }
    var flags: UInt8 { header[1] }
    var itt: UInt32 { get32(16) }

    mutating func set16(_ at: Int, _ value: UInt16) {
        header[at] = UInt8(value >> 8)
        header[at + 1] = UInt8(value & 0xff)
    }
    mutating func set32(_ at: Int, _ value: UInt32) {
        for byte in 0..<4 { header[at + byte] = UInt8(truncatingIfNeeded: value >> UInt32(24 - 8 * byte)) }
    }
    func get16(_ at: Int) -> UInt16 { UInt16(header[at]) << 8 | UInt16(header[at + 1]) }
    func get32(_ at: Int) -> UInt32 { (0..<4).reduce(0) { $0 << 8 | UInt32(header[at + $1]) } }

    var bytes: [UInt8] {
        var copy = self
        copy.header[5] = UInt8(data.count >> 16)
        copy.set16(6, UInt16(data.count & 0xffff))
        return copy.header + data + [UInt8](repeating: 0, count: (4 - data.count % 4) % 4)
    }

    /// Takes a whole PDU from the front of `stream`.
    static func take(_ stream: inout [UInt8]) -> PDU? {
        guard stream.count >= 48 else { return nil }
        let length = Int(stream[5]) << 16 | Int(stream[6]) << 8 | Int(stream[7])
        let whole = 48 + (length + 3) / 4 * 4
        guard stream.count >= whole else { return nil }
        let pdu = PDU(header: Array(stream[..<48]), data: Array(stream[48..<48 + length]))
        stream.removeFirst(whole)
        return pdu
    }
}

/// CDBs.
enum CDB {
    static func blocks(_ opcode: UInt8, _ lba: UInt64, _ count: Int, flags: UInt8 = 0) -> [UInt8] {
        var cdb = [opcode, flags] + (0..<8).map { UInt8(truncatingIfNeeded: lba >> UInt64(56 - 8 * $0)) }
        cdb += (0..<4).map { UInt8(truncatingIfNeeded: count >> (24 - 8 * $0)) }
        return cdb + [0, 0]
    }
    static func read(_ lba: UInt64, _ count: Int) -> [UInt8] { blocks(0x88, lba, count) }
    static func write(_ lba: UInt64, _ count: Int) -> [UInt8] { blocks(0x8a, lba, count) }
    static func orWrite(_ lba: UInt64, _ count: Int) -> [UInt8] { blocks(0x8b, lba, count) }
    static func compareAndWrite(_ lba: UInt64, _ count: UInt8) -> [UInt8] {
        var cdb = blocks(0x89, lba, 0)
        cdb[13] = count
        return cdb
    }
    static let testUnitReady = [UInt8](repeating: 0, count: 6)
    static let synchronizeCache: [UInt8] = [0x35] + [UInt8](repeating: 0, count: 9)
    static func reportLUNs(_ length: UInt16) -> [UInt8] { [0xa0, 0, 0, 0, 0, 0, 0, 0, UInt8(length >> 8), UInt8(length & 0xff), 0, 0] }
    static func inquiry(_ length: UInt8) -> [UInt8] { [0x12, 0, 0, 0, length, 0] }
    static let reserve6: [UInt8] = [0x16, 0, 0, 0, 0, 0]
    static func reserveOut(_ action: UInt8, type: UInt8 = 0) -> [UInt8] { [0x5f, action, type, 0, 0, 0, 0, 0, 24, 0] }
    static func reserveOutList(key: UInt64 = 0, actionKey: UInt64 = 0) -> [UInt8] {
        let keys = [key, actionKey].flatMap { key in (0..<8).map { UInt8(truncatingIfNeeded: key >> UInt64(56 - 8 * $0)) } }
        return keys + [UInt8](repeating: 0, count: 8)
    }
}

/// A LUN field for a flat number.
func lunField(_ number: Int) -> UInt64 { UInt64(number < 256 ? number : 0x4000 | number) << 48 }
