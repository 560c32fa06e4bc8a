// Package config reads the configuration file of jwksd.
//
// The file is YAML and is read strictly: an unknown or repeated key, a value of
// the wrong type, a duration without a unit, an algorithm that is not offered,
// or a timing that does not hold is an error that names file, line, column and
// field and says what to do. As many errors as possible are reported at once.
// Anchors, aliases, tags and several documents in one file are refused: a
// configuration says what it says where one reads it.
//
// The type Config and the types of its fields are the manual: every field tells
// its unit and its default. The smallest file is
//
//	keysets:
//	  default:
//	    issuer: https://auth.example.com
//
// Time is an argument, since a schedule is checked over the years to come.
// Nothing here is created or written.
package config
