// Package cloudfront is the CloudFront API: distributions and all that they name
// (policies, access controls, keys, functions), invalidations and tags.
//
// Each resource is kept as the API has it, its configuration complete with
// defaults, in a collection of its own. What edge locations need of it is derived
// and put into the collections of package distribution: first the API's record
// is durable, then what follows from it, and at the start all of it is derived
// anew, so that a crash in between leaves nothing behind.
//
// Facts on the API are from its model, version 2020-05-31, and the CloudFront
// developer guide.
package cloudfront
