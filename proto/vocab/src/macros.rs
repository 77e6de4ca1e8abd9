//! How does an enum get its texts and its stable numbers from one table?

/// Declares a fieldless enum whose variants have a fixed text and a stable number.
///
/// Generates `ALL` (in declaration order), `name`, `code`, `from_code`, `from_name` and `Display`.
macro_rules! named_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$vmeta:meta])* $variant:ident = $code:literal, $text:literal; )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $( $(#[$vmeta])* $variant = $code, )+
        }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];

            /// The text as Slurm spells it; also what `Display` prints.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $text, )+ }
            }

            /// The number under which records store this value; never reused for another.
            #[must_use]
            pub const fn code(self) -> u32 {
                match self { $( Self::$variant => $code, )+ }
            }

            /// Inverse of [`Self::code`]; `None` for a number of a newer version.
            #[must_use]
            pub const fn from_code(code: u32) -> Option<Self> {
                match code { $( $code => Some(Self::$variant), )+ _ => None }
            }

            /// Inverse of [`Self::name`], in any case of letters.
            #[must_use]
            pub fn from_name(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| v.name().eq_ignore_ascii_case(text))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

/// Declares a small set of `named_enum` values: one bit per value, number `1 << code`.
macro_rules! flag_set {
    ( $(#[$meta:meta])* pub struct $set:ident of $flag:ident; ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $set(u32);

        impl $set {
            /// No flag.
            pub const EMPTY: Self = Self(0);

            /// The bits for records: bit `flag.code()` is set for each flag held.
            #[must_use]
            pub const fn bits(self) -> u32 {
                self.0
            }

            /// Inverse of [`Self::bits`]; bits that name no flag are dropped.
            #[must_use]
            pub fn from_bits(bits: u32) -> Self {
                let mut set = Self::EMPTY;
                for flag in $flag::ALL.iter().copied() {
                    if bits & (1 << flag.code()) != 0 {
                        set.insert(flag);
                    }
                }
                set
            }

            /// Whether no flag is set.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Whether `flag` is set.
            #[must_use]
            pub const fn contains(self, flag: $flag) -> bool {
                self.0 & (1 << flag.code()) != 0
            }

            /// Sets `flag`; true if it was not set before.
            pub const fn insert(&mut self, flag: $flag) -> bool {
                let was = self.contains(flag);
                self.0 |= 1 << flag.code();
                !was
            }

            /// Clears `flag`; true if it was set before.
            pub const fn remove(&mut self, flag: $flag) -> bool {
                let was = self.contains(flag);
                self.0 &= !(1 << flag.code());
                was
            }

            /// This set with `flag` in it.
            #[must_use]
            pub const fn with(mut self, flag: $flag) -> Self {
                self.insert(flag);
                self
            }

            /// This set without `flag`.
            #[must_use]
            pub const fn without(mut self, flag: $flag) -> Self {
                self.remove(flag);
                self
            }

            /// The flags set, in the order of declaration.
            pub fn iter(self) -> impl Iterator<Item = $flag> {
                $flag::ALL.iter().copied().filter(move |flag| self.contains(*flag))
            }
        }

        impl FromIterator<$flag> for $set {
            fn from_iter<I: IntoIterator<Item = $flag>>(flags: I) -> Self {
                let mut set = Self::EMPTY;
                for flag in flags {
                    set.insert(flag);
                }
                set
            }
        }
    };
}

pub(crate) use flag_set;
pub(crate) use named_enum;
