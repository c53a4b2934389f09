package usage

import (
	"strings"
	"time"
)

// The years that count: before is no log, after does not fit a server's clock in nanoseconds.
const firstYear, lastYear = 1970, 2261

const months = "JanFebMarAprMayJunJulAugSepOctNovDec"

// parseTime reads 02/Jan/2006:15:04:05 -0700. time.Parse would allocate a location for each line.
func parseTime(s string) (at time.Time, reason string) {
	const badTime = "no time like 02/Jan/2006:15:04:05 -0700"
	if len(s) != len("02/Jan/2006:15:04:05 -0700") ||
		s[2] != '/' || s[6] != '/' || s[11] != ':' || s[14] != ':' || s[17] != ':' || s[20] != ' ' {
		return at, badTime
	}
	month := strings.Index(months, s[3:6])
	if month < 0 || month%3 != 0 {
		return at, badTime
	}
	for _, digits := range [...]string{s[0:2], s[7:11], s[12:14], s[15:17], s[18:20], s[22:26]} {
		if !isDigits(digits) {
			return at, badTime
		}
	}
	day, year := number(s[0:2]), number(s[7:11])
	hour, minute, second := number(s[12:14]), number(s[15:17]), number(s[18:20])
	zoneHours, zoneMinutes := number(s[22:24]), number(s[24:26])
	if hour > 23 || minute > 59 || second > 59 || zoneHours > 23 || zoneMinutes > 59 {
		return at, badTime
	}
	if year < firstYear || year > lastYear {
		return at, "a year outside 1970 to 2261"
	}
	at = time.Date(year, time.Month(month/3+1), day, hour, minute, second, 0, time.UTC)
	if at.Day() != day { // 31/Feb became March
		return at, "no such day"
	}
	offset := time.Duration(zoneHours)*time.Hour + time.Duration(zoneMinutes)*time.Minute
	switch s[21] {
	case '+':
		at = at.Add(-offset)
	case '-':
		at = at.Add(offset)
	default:
		return at, badTime
	}
	if at.Unix() < 0 || at.Year() > lastYear {
		return at, "a year outside 1970 to 2261"
	}
	return at, ""
}
