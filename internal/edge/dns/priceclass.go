package dns

import "strings"

// covered tells whether a distribution's price class covers locations in an AWS
// Region ("Choose the price class for a CloudFront distribution"). A location of
// which no Region is known is covered.
func covered(class, region string) bool {
	area, _, _ := strings.Cut(region, "-")
	switch class {
	case "PriceClass_100":
		switch area {
		case "us", "ca", "mx", "eu", "eusc", "il", "":
			return true
		}
		return false
	case "PriceClass_200":
		switch {
		case area == "sa": // South America
			return false
		case region == "ap-southeast-2", region == "ap-southeast-4", region == "ap-southeast-6": // Australia, New Zealand
			return false
		}
	}
	return true
}
