import JSON

/// Writes JSON (RFC 8259) as it goes, so that a report of a hundred thousand objects is never more than its text.
///
/// Strings are UTF-8; what is hidden, quotation marks and backslashes in them are escaped. Numbers are integers.
public struct JSONWriter: Sendable {
    public private(set) var bytes: [UInt8] = []
    /// Something stands in front of what comes next, in the same object or array.
    private var needsComma = false

    /// A whole document: an object that begins with its schema's version.
    public static func document(_ body: (inout JSONWriter) -> Void) -> [UInt8] {
        var writer = JSONWriter()
        writer.enclosed("{", "}") { writer in
            writer.field("schemaVersion", JSONSchema.version)
            body(&writer)
        }
        writer.bytes.append(UInt8(ascii: "\n"))
        return writer.bytes
    }

    private init() {}

    // MARK: Members of an object

    public mutating func field(_ name: String, _ value: some FixedWidthInteger) {
        key(name)
        bytes += String(value).utf8
    }

    public mutating func field(_ name: String, _ value: Bool) {
        key(name)
        bytes += (value ? "true" : "false").utf8
    }

    /// nil is `null`.
    public mutating func field(_ name: String, _ value: String?) {
        key(name)
        string(value)
    }

    public mutating func object(_ name: String, _ body: (inout JSONWriter) -> Void) {
        key(name)
        enclosed("{", "}", body)
    }

    /// An array of objects.
    public mutating func objects<Element>(_ name: String, _ elements: some Sequence<Element>, _ each: (inout JSONWriter, Element) -> Void) {
        key(name)
        enclosed("[", "]") { writer in
            for element in elements {
                writer.comma()
                writer.enclosed("{", "}") { each(&$0, element) }
                writer.needsComma = true
            }
        }
    }

    /// An array of strings.
    public mutating func strings(_ name: String, _ elements: some Sequence<String>) {
        key(name)
        enclosed("[", "]") { writer in
            for element in elements {
                writer.comma()
                writer.string(element)
            }
        }
    }

    // MARK: Pieces

    private mutating func comma() {
        if needsComma { bytes.append(UInt8(ascii: ",")) }
        needsComma = true
    }

    private mutating func key(_ name: String) {
        comma()
        string(name)
        bytes.append(UInt8(ascii: ":"))
    }

    private mutating func enclosed(_ start: Unicode.Scalar, _ end: Unicode.Scalar, _ body: (inout JSONWriter) -> Void) {
        bytes.append(UInt8(ascii: start))
        needsComma = false
        body(&self)
        bytes.append(UInt8(ascii: end))
        needsComma = true
    }

    private mutating func string(_ value: String?) {
        guard let value else { return bytes += "null".utf8 }
        JSONValue.quote(value, into: &bytes)
    }

    /// Bytes that are mostly text, without loss: UTF-8 stays as it is but for the backslash; that and every byte that is no UTF-8
    /// become `\xNN`.
    public static func text(of bytes: [UInt8]) -> String {
        if !bytes.contains(UInt8(ascii: "\\")), let text = String(validating: bytes, as: UTF8.self) { return text }
        var text = ""
        var rest = bytes[...]
        while let byte = rest.first {
            // The shortest sequence that is valid begins here, if any is: UTF-8 is at most four bytes a character.
            let scalar = (1...4).lazy.filter { $0 <= rest.count }.compactMap { String(validating: rest.prefix($0), as: UTF8.self) }.first
            if let scalar, byte != UInt8(ascii: "\\") {
                text += scalar
                rest = rest.dropFirst(scalar.utf8.count)
            } else {
                text += "\\x" + JSONValue.hexadecimal([byte])
                rest = rest.dropFirst()
            }
        }
        return text
    }
}

/// What `tgtadm --json` prints: one object on one line.
///
/// Every document has `schemaVersion`. Within a version members are only added, never renamed or removed, and no member changes
/// its meaning: pass over those you do not know. Names are lower camel case. Sizes are bytes, times seconds; `tid`, `lun`, `sid` and
/// `cid` are the numbers tgtadm takes. What does not exist is `null`, a list of nothing `[]`.
///
/// | request | members |
/// |---|---|
/// | `--mode system --op show` | `system`: `version`, `state` (`ready`, `offline`), `debug`, `backingStores` [string], `deviceTypes` [string], `discoveryAccounts` (accounts), `hindrance`, `limits` {name: value as text}, `audit` (there if a trail is kept): `directory`, `trouble`, `networkTrouble`; `penalties`: `sourcesWaiting`, `sourcesRemembered`, `refusedConnections`, `refusedAnswers` |
/// | `--mode target --op show` | `targets` [target], with `--tid` the one |
/// | `--mode connection --op show` | `connections` [`tid`, `sid`, `cid`, `initiatorName`, `initiatorAlias`, `authentication` and `tls` (as of a session), `address`] |
/// | `--mode account --op show` | `accounts` [`tenant`, `name`, `secrets`: how many are live] |
/// | `--mode account --op generate` | `account`: `name`, `secret` |
/// | `--mode portal --op show` | `portals` [portal] |
/// | `--mode lld --op show` | `drivers` [`name`, `state`, `targets` [`tid`, `name`]] |
/// | `--mode access --op show` | `penalties` [`source` (an IPv4 address, or an IPv6 network), `secondsLeft`] that have to wait after failures to log in |
/// | `--mode access --op explain` | `access`: `admitted`, `reason` (why not), `rules` [`address` or `name`, `luns`] that decide, `luns` that the initiator is shown, `account` it has to have authenticated with, `portals` of the target's tenant: through these alone (none: through all) |
/// | `--op stat` of system, target, logicalunit | `statistics` [statistics] |
/// | `--mode session --op stat` | `statistics` [statistics], `connections` [traffic] |
/// | `--mode connection --op stat` | `connections` [traffic] |
/// | `--transaction` | `transaction`: `requests`, how many were carried out |
/// | whatever is refused | `error`: `number` and `text` as in tgt's protocol, `reason`, `request` (for a transaction, which of its requests: 0 is the first) |
///
/// | value | members |
/// |---|---|
/// | target | `tid`, `name`, `tenant`, `state`, `nopInterval`, `nopCount`, `requireMutualCHAP` and `requireTLS` (true or false), `parameters` {iSCSI key: value as text}, `sessions` [session], `logicalUnits` [logical unit], `accounts` (accounts), `rules`: `addresses` [string], `names` [string], `masks` [`address` or `name`, `luns` as `--luns` takes them] of the rules that do not show everything |
/// | portal | `address`, `port`, `groupTag`, `open` (whether somebody listens), `advertise` (`ADDRESS:PORT`), `tls` (`null` in clear): `policy`, `clientAuth` (`none`, `optional`, `required`), the paths `certificate`, `key`, `clientCA`, `crl`, `clientMap`, `pskFile`, `certificateExpires` (seconds since 1970), and `failedHandshakes` {cause: how many since the portal is open} |
/// | session | `sid`, `initiatorName`, `initiatorAlias`, `authentication` (only if there is any: `account`, `algorithm`, `mutual`, `md5InClear`), `tls` (only if it came through TLS: `version`, `cipher`, `kernel` (whether it encrypts what is sent), what the initiator has shown: the SHA-256 of its `certificate` in hexadecimal digits or its `pskIdentity`, and the `provenName` that this stands for, each `null` if there is none), `connections` [`cid`, `address`] |
/// | logical unit | `lun`, `type` (`disk`, `controller`), `identity`: `scsiId`, `serialNumber`, `naa` (hexadecimal digits), `vendor`, `product`, `revision`; `size`, `blockSize`, `online`, `removable`, `preventRemoval`, `readOnly`, `softwareWriteProtected`, `thinProvisioning`, `flushFailed`, `backingStore`: `type`, `path`, `flags` [string] |
/// | accounts | `incoming` [string], `outgoing`, `initiators` [`account`, `initiator`] of those that are for one initiator |
/// | statistics | `tid`, `lun`, `sid`, `reads` and `writes`: `submittedBytes`, `submittedCommands`, `doneBytes`, `doneCommands`; `errors` |
/// | traffic | `sid`, `cid`, `receivedOctets`, `sentOctets`, `dataOutPDUs`, `dataInPDUs`, `commandPDUs`, `responsePDUs` |
///
/// Causes of failed handshakes: `notTLS` (clear iSCSI, mostly), `closed` (the peer went away), `timedOut`, `version`, `nothingInCommon`
/// (cipher, group or signature scheme), `noIdentity` (neither certificate nor pre-shared key), `certificate` (not believed),
/// `preSharedKey` (unknown or wrong), `notSigned` (by us), `alert` (the peer refused us), `protocol`.
///
/// `initiatorAlias` is what the initiator says of itself: all but printable ASCII, and the backslash, is written `\xNN` in it, and in `pskIdentity`. In
/// `path`, only bytes that are no UTF-8, and the backslash, are.
public enum JSONSchema {
    public static let version = 1
}
