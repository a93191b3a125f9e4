/// SENSE KEY (SPC-4 §4.5.6).
public enum SenseKey: UInt8, Sendable {
    case noSense = 0x0, recoveredError = 0x1, notReady = 0x2, mediumError = 0x3, hardwareError = 0x4, illegalRequest = 0x5
    case unitAttention = 0x6, dataProtect = 0x7, abortedCommand = 0xb, miscompare = 0xe
}

/// ADDITIONAL SENSE CODE and its qualifier (SPC-4 §4.5.6 and annex F).
public struct AdditionalSenseCode: Hashable, Sendable {
    public let asc: UInt8
    public let ascq: UInt8
    public init(_ asc: UInt8, _ ascq: UInt8) {
        self.asc = asc
        self.ascq = ascq
    }

    public static let none = Self(0x00, 0x00)
    public static let manualInterventionRequired = Self(0x04, 0x03)
    public static let writeError = Self(0x0c, 0x00)
    public static let unrecoveredReadError = Self(0x11, 0x00)
    public static let parameterListLengthError = Self(0x1a, 0x00)
    public static let miscompareDuringVerify = Self(0x1d, 0x00)
    public static let invalidOperationCode = Self(0x20, 0x00)
    public static let logicalBlockAddressOutOfRange = Self(0x21, 0x00)
    public static let invalidFieldInCDB = Self(0x24, 0x00)
    public static let logicalUnitNotSupported = Self(0x25, 0x00)
    public static let invalidFieldInParameterList = Self(0x26, 0x00)
    public static let invalidReleaseOfPersistentReservation = Self(0x26, 0x04)
    public static let writeProtected = Self(0x27, 0x00)
    public static let softwareWriteProtected = Self(0x27, 0x02)
    public static let spaceAllocationFailedWriteProtect = Self(0x27, 0x07)
    public static let savingParametersNotSupported = Self(0x39, 0x00)
    public static let mediumNotPresent = Self(0x3a, 0x00)
    public static let internalTargetFailure = Self(0x44, 0x00)
    public static let mediumRemovalPrevented = Self(0x53, 0x02)
    public static let insufficientReservationResources = Self(0x55, 0x02)
    public static let insufficientRegistrationResources = Self(0x55, 0x04)
}

/// What a CHECK CONDITION tells the initiator (SPC-4 §4.5).
public struct Sense: Error, Hashable, Sendable {
    /// Where an invalid field stands (SPC-4 §4.5.2.4.2).
    public struct FieldPointer: Hashable, Sendable {
        /// In the CDB, not in the parameter list.
        public var inCommand: Bool
        public var byte: UInt16
        /// The field's most significant bit, where it is less than a byte.
        public var bit: UInt8?
    }

    public var key: SenseKey
    public var code: AdditionalSenseCode
    public var information: UInt64?
    public var field: FieldPointer?

    public init(_ key: SenseKey, _ code: AdditionalSenseCode, information: UInt64? = nil, field: FieldPointer? = nil) {
        self.key = key
        self.code = code
        self.information = information
        self.field = field
    }

    /// INVALID FIELD IN CDB.
    static func field(_ byte: Int, bit: UInt8? = nil) -> Sense {
        Sense(.illegalRequest, .invalidFieldInCDB, field: FieldPointer(inCommand: true, byte: UInt16(clamping: byte), bit: bit))
    }

    /// INVALID FIELD IN PARAMETER LIST.
    static func parameter(_ byte: Int, bit: UInt8? = nil) -> Sense {
        let field = FieldPointer(inCommand: false, byte: UInt16(clamping: byte), bit: bit)
        return Sense(.illegalRequest, .invalidFieldInParameterList, field: field)
    }

    static let listLength = Sense(.illegalRequest, .parameterListLengthError)
    public static let writeProtected = Sense(.dataProtect, .writeProtected)
    static let outOfRange = Sense(.illegalRequest, .logicalBlockAddressOutOfRange)
    static let targetFailure = Sense(.hardwareError, .internalTargetFailure)

    /// The sense data: current error, in fixed (SPC-4 §4.5.3) or descriptor format (§4.5.2).
    public func encoded(descriptorFormat: Bool) -> [UInt8] {
        descriptorFormat ? encodedAsDescriptors : encodedAsFixed
    }

    private var encodedAsFixed: [UInt8] {
        let fitting = information.flatMap { UInt32(exactly: $0) }
        var bytes: [UInt8] = [fitting == nil ? 0x70 : 0xf0, 0, key.rawValue]
        bytes.append(bigEndian: fitting ?? 0)
        bytes += [10, 0, 0, 0, 0, code.asc, code.ascq, 0]
        bytes += senseKeySpecific ?? [0, 0, 0]
        return bytes
    }

    private var encodedAsDescriptors: [UInt8] {
        var bytes: [UInt8] = [0x72, key.rawValue, code.asc, code.ascq, 0, 0, 0, 0]
        if let information {
            bytes += [0x00, 0x0a, 0x80, 0x00]
            bytes.append(bigEndian: information)
        }
        if let specific = senseKeySpecific {
            bytes += [0x02, 0x06, 0x00, 0x00] + specific + [0x00]
        }
        bytes[7] = UInt8(bytes.count - 8)
        return bytes
    }

    private var senseKeySpecific: [UInt8]? {
        guard let field else { return nil }
        let flags: UInt8 = 0x80 | (field.inCommand ? 0x40 : 0) | (field.bit.map { 0x08 | $0 & 0x07 } ?? 0)
        return [flags, UInt8(field.byte >> 8), UInt8(field.byte & 0xff)]
    }
}

/// A unit attention condition (SAM-5 §5.14): what a nexus is told once, with its next command.
public struct UnitAttention: Hashable, Sendable {
    public let code: AdditionalSenseCode
    public init(_ code: AdditionalSenseCode) { self.code = code }

    public static let notReadyToReadyChange = Self(.init(0x28, 0x00))
    public static let powerOnOrReset = Self(.init(0x29, 0x00))
    public static let busDeviceReset = Self(.init(0x29, 0x03))
    public static let nexusLoss = Self(.init(0x29, 0x07))
    public static let modeParametersChanged = Self(.init(0x2a, 0x01))
    public static let reservationsPreempted = Self(.init(0x2a, 0x03))
    public static let reservationsReleased = Self(.init(0x2a, 0x04))
    public static let registrationsPreempted = Self(.init(0x2a, 0x05))
    public static let capacityDataChanged = Self(.init(0x2a, 0x09))
    public static let commandsClearedByAnotherInitiator = Self(.init(0x2f, 0x00))
    public static let inquiryDataChanged = Self(.init(0x3f, 0x03))
    public static let reportedLUNsDataChanged = Self(.init(0x3f, 0x0e))

    /// Resets are reported before everything else: they say that nothing the initiator knew holds any more.
    var isReset: Bool { code.asc == 0x29 }
}

extension Completion {
    /// CHECK CONDITION with this sense data.
    public static func checkCondition(_ sense: Sense, descriptorFormat: Bool = false) -> Completion {
        Completion(status: .checkCondition, sense: sense.encoded(descriptorFormat: descriptorFormat))
    }

    /// CHECK CONDITION for callers that know the numbers.
    public static func checkCondition(key: SenseKey, asc: UInt8, ascq: UInt8, descriptorFormat: Bool = false) -> Completion {
        checkCondition(Sense(key, AdditionalSenseCode(asc, ascq)), descriptorFormat: descriptorFormat)
    }

    /// GOOD with the part of `bytes` that fits into ALLOCATION LENGTH (SPC-4 §4.2.5.6).
    static func data(_ bytes: [UInt8], allocated: Int) -> Completion {
        let count = min(bytes.count, allocated)
        return Completion(dataIn: count == 0 ? .none : .bytes(count == bytes.count ? bytes : Array(bytes[..<count])))
    }
}

/// Why a command ends without being carried out.
enum Refusal: Error {
    case check(Sense)
    case conflict
    case busy
}
