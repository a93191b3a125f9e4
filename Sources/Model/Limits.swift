/// How much may be configured. Control keeps all of it in memory and sends it to the other processes.
public enum Limits {
    /// Targets: a host of many tenants serves ten thousand small ones, and some room; tgt's users number them up to 4094 (Longhorn).
    public static let targets = 16384
    /// Logical units of a target, the controller included: all that flat space addressing reaches (SAM-5 §4.7.7).
    public static let logicalUnits = 16384
    /// Address rules, and name rules, of a target. Each login goes through them all.
    public static let rules = 1024
    public static let accounts = 65536
    /// Accounts bound to one target, or to discovery.
    public static let boundAccounts = 64
    /// Bytes of an account name: CHAP_N is a text value of at most 255 bytes (RFC 7143 §6.1).
    public static let accountNameLength = 255
    /// Bytes of a secret: what a CHAP peer has to store, and no more than a text value has (RFC 7143 §6.1).
    public static let secretLength = 255
    /// Bytes of 96 bits, below which a secret can be guessed from one login that was overheard (RFC 7143 §9.2.1).
    public static let strongSecretLength = 12
    /// Listening sockets.
    public static let portals = 64
    /// Bytes of a path: PATH_MAX without its terminating zero.
    public static let pathLength = 4095
    /// Seconds between two NOP-In: a day. More says nothing about a connection any more.
    public static let nopInterval = 86400
    /// Unanswered NOP-In before a connection is given up.
    public static let nopCount = 1024
}
