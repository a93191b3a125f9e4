import Bytes

/// What one connection in full-feature phase may hold.
public enum FullFeatureLimits {
    /// Bytes of PDUs that came before their turn. One connection carries its commands in order; only an initiator that
    /// tests or errs does not.
    public static let heldBytes = 1 << 20
    /// Immediate SCSI commands and immediate task management requests under way, each: the command window does not count them.
    public static let immediate = 16
    /// R2Ts outstanding for one task, whatever was negotiated: more would not make a transfer faster.
    public static let outstandingR2Ts = 16
    /// Ended tasks whose Data-Out PDUs are still expected, and discarded as they come. The oldest is forgotten first.
    public static let draining = 64
    /// Bytes of data from which on a receive of their own costs less than their copy.
    public static let landing = 32 << 10
    /// Bytes of a NOP-Out that are sent back.
    public static let pingBytes = 65536
    /// Bytes of text that one negotiation may bring.
    public static let textBytes = 8192
    /// Keys in them.
    public static let textKeys = 32
}

/// A place for the next bytes of a connection.
public struct Landing {
    public let buffer: Buffer
    /// Where in it; not empty.
    public let range: Range<Int>
}

/// Octets and PDUs of a connection since its login (RFC 7143 §11).
public struct Traffic: Hashable, Sendable {
    public var receivedOctets: UInt64 = 0
    public var sentOctets: UInt64 = 0
    /// PDUs of every kind.
    public var receivedPDUs: UInt64 = 0
    public var sentPDUs: UInt64 = 0
    /// SCSI Data-Out and Data-In.
    public var dataOutPDUs: UInt64 = 0
    public var dataInPDUs: UInt64 = 0
    /// SCSI Command and SCSI Response. A read that ends well has no Response: its status travels with the data.
    public var commandPDUs: UInt64 = 0
    public var responsePDUs: UInt64 = 0

    public init() {}

    mutating func received(_ header: BasicHeader) {
        receivedPDUs &+= 1
        switch header.opcode {
        case .scsiCommand: commandPDUs &+= 1
        case .dataOut: dataOutPDUs &+= 1
        default: break
        }
    }

    mutating func sent(_ header: BasicHeader) {
        sentPDUs &+= 1
        switch header.opcode {
        case .scsiResponse: responsePDUs &+= 1
        case .dataIn: dataInPDUs &+= 1
        default: break
        }
    }
}

/// A task of this connection: valid from its `command` event until it is finished or dropped.
public struct TaskIndex: Hashable, Sendable {
    /// A small number; it serves another task later.
    public let rawValue: Int
    public init(rawValue: Int) { self.rawValue = rawValue }
}

/// What a SCSI Command PDU says (RFC 7143 §11.3).
public struct TaskInfo: Sendable {
    public var initiatorTaskTag: UInt32
    /// The LUN field, big-endian.
    public var lun: UInt64
    /// The first 16 bytes of the command descriptor block; of a longer one the rest is not kept.
    public var cdb: InlineArray<16, UInt8>
    /// Task attribute: 0 untagged, 1 simple, 2 ordered, 3 head of queue, 4 ACA; 5…7 are reserved.
    public var attribute: UInt8
    public var isImmediate: Bool
    /// The R and W bits: the initiator expects Data-In, or has Data-Out.
    public var reads: Bool
    public var writes: Bool
    /// Expected Data Transfer Length, in bytes: of Data-Out if `writes`, else of Data-In.
    public var expectedDataTransferLength: Int
    /// Expected length of Data-In of a bidirectional command, if it came with one.
    public var bidirectionalReadLength: UInt32?
    public var cmdSN: UInt32
}

/// What a command returns.
public enum DataIn: Sendable {
    case none
    case bytes([UInt8])
    /// The first `count` bytes of the buffer, which nobody changes any more.
    case buffer(Buffer, count: Int)

    public var count: Int {
        switch self {
        case .none: 0
        case .bytes(let bytes): bytes.count
        case .buffer(_, let count): count
        }
    }
}

/// Why a task's Data-Out cannot be used: additional sense code and qualifier, to go with ABORTED COMMAND (RFC 7143 §11.4.7.2).
public enum DataOutError: Error, Hashable, Sendable {
    case unexpectedUnsolicitedData
    case incorrectAmountOfData
    /// A DataSN, Buffer Offset or Target Transfer Tag out of sequence: without error recovery, data are lost.
    case outOfSequence

    public var additionalSense: (code: UInt8, qualifier: UInt8) {
        switch self {
        case .unexpectedUnsolicitedData: (0x0c, 0x0c)
        case .incorrectAmountOfData: (0x0c, 0x0d)
        case .outOfSequence: (0x47, 0x05)
        }
    }
}

/// Task Management Function Request (RFC 7143 §11.5).
public struct TaskManagementRequest: Hashable, Sendable {
    /// What an ABORT TASK means to abort (RFC 7143 §11.6.1).
    public enum Referenced: Hashable, Sendable {
        /// The function has no referenced task.
        case none
        case task(TaskIndex)
        /// It is over, or counts as received and aborted: answer 0 (function complete).
        case isOver
        /// Answer 1 (task does not exist).
        case doesNotExist
    }

    /// 1 ABORT TASK, 2 ABORT TASK SET, 3 CLEAR ACA, 4 CLEAR TASK SET, 5 LOGICAL UNIT RESET, 6 TARGET WARM RESET,
    /// 7 TARGET COLD RESET, 8 TASK REASSIGN; anything else is unknown.
    public var function: UInt8
    public var lun: UInt64
    public var initiatorTaskTag: UInt32
    public var referenced: Referenced
    public var isImmediate: Bool

    public static let abortTask: UInt8 = 1
}

/// Logout Request (RFC 7143 §11.14).
public struct LogoutRequest: Hashable, Sendable {
    public enum Reason: UInt8, Hashable, Sendable { case closeSession = 0, closeConnection = 1, removeForRecovery = 2 }

    public var reason: Reason
    public var cid: UInt16
    public var initiatorTaskTag: UInt32
}

/// A SendTargets question (RFC 7143, Appendix C).
public struct TextRequest: Hashable, Sendable {
    public enum Selection: Hashable, Sendable {
        /// Every target the initiator may see: asked in discovery sessions alone.
        case all
        case name(ISCSIName)
        /// The target of this session: asked in normal sessions alone.
        case sessionTarget
    }
    public var selection: Selection
    var tag: UInt32
}

/// A target in the answer to SendTargets.
public struct DiscoveredTarget: Hashable, Sendable {
    public var name: ISCSIName
    /// Each as `address:port`, IPv6 addresses in brackets.
    public var addresses: [String]
    public var portalGroupTag: UInt16

    public init(name: ISCSIName, addresses: [String], portalGroupTag: UInt16) {
        self.name = name
        self.addresses = addresses
        self.portalGroupTag = portalGroupTag
    }

    /// As keys, each ended by a zero byte (RFC 7143, Appendix C).
    public var text: [UInt8] {
        var text = Array("TargetName=\(name.spelling)\0".utf8)
        for address in addresses { text += "TargetAddress=\(address),\(portalGroupTag)\0".utf8 }
        return text
    }
}

/// Why the connection has to go. There is no recovery within a connection at ErrorRecoveryLevel 0.
public enum ConnectionError: Error, Hashable, Sendable {
    case headerDigest
    case dataDigest
    /// A data segment longer than MaxRecvDataSegmentLength.
    case dataSegmentTooLong
    case additionalHeaderSegments
    /// PDUs before their turn exceed `FullFeatureLimits.heldBytes`.
    case tooMuchOutOfOrder
    /// Something other than data came behind a Logout Request.
    case requestAfterLogout
}

/// Reasons of a Reject (RFC 7143 §11.17.1).
enum RejectReason: UInt8 {
    case dataDigestError = 0x02, snackReject = 0x03, protocolError = 0x04, commandNotSupported = 0x05
    case immediateCommandReject = 0x06, taskInProgress = 0x07, invalidPDUField = 0x09
}
