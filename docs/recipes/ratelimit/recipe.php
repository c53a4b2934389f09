<?php

declare(strict_types=1);

namespace Flatrate;

/*
 * flatrate's rate limits from PHP: the keys and the script of the Go package ratelimit, so that all count together. The
 * client is that of the extension redis (phpredis); give it a read timeout. PHP 8.1 or later, 64 bits.
 *
 *   $limiter = new RateLimiter($redis, [['algorithm' => 'bucket', 'limit' => 10, 'window' => 1000, 'burst' => 50]]);
 *   $result = $limiter->allow('user:42'); // an exception is no admission
 *   if (!$result['allowed']) { retry($result['retryAfter']); } // ms; INF if the cost is above a limit
 */
final class RateLimiter
{
    private const LETTERS = ['fixed' => 'w', 'sliding' => 's', 'log' => 'l', 'bucket' => 'b', 'concurrency' => 'c', 'quota' => 'q'];
    private const PERIODS = ['day' => 1, 'week' => 2, 'month' => 3];
    private const DAYS = ['day' => 1, 'week' => 7, 'month' => 28];
    private const MOST = 2 ** 53;
    private const LONGEST = 100 * 365 * 86_400_000; // ms

    private static ?string $script = null;
    /** @var list<array{shape: string, ticks: int, args: list<int|string>}> */
    private array $limits;
    private bool $places;
    private string $head;

    /** Limits: one to 16, at most one of them of concurrency. All times are whole ms. */
    public function __construct(private \Redis $client, array $limits, string $prefix = 'fr', string $name = '')
    {
        if ($prefix === '' || strlen($prefix) > 64 || preg_match('/[\x00-\x20\x7f{}]/', $prefix)) {
            throw new \ValueError('prefix is empty, over 64 bytes, or has a brace, a space or a control byte');
        }
        self::whole('the number of limits', count($limits), 1, 16);
        self::$script ??= file_get_contents(__DIR__ . '/../../../ratelimit/decide.lua');
        $this->limits = array_map(self::compile(...), array_values($limits));
        $shapes = array_column($this->limits, 'shape');
        $this->places = in_array('c', $shapes, true);
        if (count(array_keys($shapes, 'c', true)) > 1) {
            throw new \ValueError('a second limit of concurrency');
        }
        $this->head = $prefix . ':rate:' . ($name === '' ? '' : self::group($name) . ':') . self::group(implode('', $shapes)) . ':';
    }

    /** @return list<string> */
    public function keys(string $subject): array
    {
        $key = $this->head . '{' . self::escape($subject) . '}';
        return $this->places ? [$key, $key . ':held'] : [$key];
    }

    /** Asks for cost units, all or none. */
    public function allow(string $subject, int $cost = 1): array
    {
        return $this->ask($subject, self::whole('the cost', $cost, 1, self::MOST), 1);
    }

    /** Asks for up to n units: the result's granted says how many. */
    public function allowAtMost(string $subject, int $n): array
    {
        return $this->ask($subject, 1, self::whole('n', $n, 1, self::MOST));
    }

    /** Says what allow would, and changes nothing. */
    public function peek(string $subject, int $cost = 1): array
    {
        return $this->ask($subject, self::whole('the cost', $cost, 1, self::MOST), 0);
    }

    /** Gives back n of the units that result was granted. */
    public function refund(string $subject, array $result, int $n): void
    {
        if (self::whole('n', $n, 0, $result['granted']) > 0) {
            $this->run($subject, '', $n, -$result['at']);
        }
    }

    /** Gives up the place of a limit of concurrency; false if it was lost to the end of its lease. */
    public function release(string $subject, array $result): bool
    {
        if ($result['token'] === '') {
            return false;
        }
        $gone = $this->client->zRem($this->keys($subject)[1], $result['token']);
        if (!is_int($gone)) {
            throw new \RedisException((string) $this->client->getLastError());
        }
        return $gone > 0;
    }

    /** Sends the script; the test vectors say what it answers. now, in Unix microseconds, is for tests only. */
    public function run(string $subject, string $token, int $cost, int $count, int ...$now): array
    {
        $keys = $this->keys($subject);
        $all = [...$keys, count($this->limits), 1];
        foreach ($this->limits as $limit) {
            $args = $limit['args'];
            if ($limit['shape'] === 'c') {
                $args[3] = $token;
            }
            array_push($all, ...$args);
        }
        array_push($all, $cost, $count, ...$now);
        $this->client->clearLastError();
        $reply = $this->client->evalSha(sha1(self::$script), $all, count($keys));
        if ($reply === false && str_starts_with((string) $this->client->getLastError(), 'NOSCRIPT')) {
            $this->client->clearLastError();
            $reply = $this->client->eval(self::$script, $all, count($keys));
        }
        if (!is_array($reply)) { // it may have been counted: do not repeat it
            throw new \RedisException('rate limit: ' . $this->client->getLastError());
        }
        return $reply;
    }

    private function ask(string $subject, int $cost, int $count): array
    {
        $token = $count > 0 && $this->places ? bin2hex(random_bytes(16)) : '';
        $numbers = $this->run($subject, $token, $cost, $count);
        [$at, $times] = $numbers;
        $limits = [];
        foreach ($this->limits as $i => $limit) {
            [$remaining, $reset, $now] = array_slice($numbers, 2 + 3 * $i, 3);
            $ms = fn (int $n): int|float => $limit['ticks'] > 0 ? self::ticks($n, $limit['ticks']) : $n;
            $retry = $times > 0 ? 0 : ($now < 0 ? INF : $ms($now));
            $limits[] = ['limit' => $limit['args'][1], 'remaining' => $remaining, 'resetAfter' => $ms($reset), 'retryAfter' => $retry];
        }
        $retry = max(array_column($limits, 'retryAfter'));
        $allowed = $count > 0 ? $times > 0 : $retry == 0;
        return ['allowed' => $allowed, 'granted' => $times * $cost, 'retryAfter' => $retry, 'limits' => $limits,
            'at' => $at, 'token' => $allowed ? $token : ''];
    }

    /** Ticks of a bucket as ms, rounded up to the microsecond. */
    private static function ticks(int $n, int $ticks): float
    {
        return intdiv($n, $ticks) + ceil($n % $ticks * 1000 / $ticks) / 1000;
    }

    /** What a limit is in a key and in the script's arguments. */
    private static function compile(array $l): array
    {
        $letter = self::LETTERS[$l['algorithm'] ?? ''] ?? throw new \ValueError('algorithm');
        $limit = self::whole('limit', $l['limit'] ?? 0, 1, $letter === 'l' ? 10_000 : self::MOST);
        if ($letter === 'c') {
            $lease = self::whole('lease', $l['lease'] ?? 30_000, 1, self::LONGEST);
            return ['shape' => 'c', 'ticks' => 0, 'args' => ['c', $limit, $lease, '']];
        }
        if ($letter === 'q') {
            $period = $l['period'] ?? '';
            $number = self::PERIODS[$period] ?? throw new \ValueError('period');
            $offset = self::whole('offset', $l['offset'] ?? 0, 0, self::DAYS[$period] * 86_400_000 - 1);
            $shape = 'q' . $period[0] . ($offset > 0 ? '-' . self::short($offset) : '');
            return ['shape' => $shape, 'ticks' => 0, 'args' => ['q', $limit, $number, $offset]];
        }
        $window = self::whole('window', $l['window'] ?? 0, 1, self::LONGEST);
        $compiled = ['shape' => $letter . self::short($window), 'ticks' => 0, 'args' => [$letter, $limit, $window, 0]];
        if ($letter === 's') {
            $compiled['args'][3] = intdiv($window + 59, 60);
        } elseif ($letter === 'l') {
            $bytes = 2;
            for ($fits = 65_536; $fits < 4 * $window; $fits *= 256) {
                $bytes++;
            }
            $compiled['args'][3] = $bytes;
        } elseif ($letter === 'b') {
            for ($common = $limit, $b = $window; $b !== 0;) {
                [$common, $b] = [$b, $common % $b];
            }
            $ticks = self::whole('the numerator of the rate', intdiv($limit, $common), 1, 1_000_000_000);
            $unit = intdiv($window, $common);
            $burst = self::whole('burst', $l['burst'] ?? $limit, 1, self::MOST);
            if ($burst > intdiv(self::MOST, $unit) || intdiv($burst * $unit, $ticks) > self::LONGEST) {
                throw new \ValueError("burst is $burst: too much beside the rate");
            }
            $compiled['shape'] = "b$limit-" . self::short($window) . "-$burst";
            $compiled['ticks'] = $ticks;
            $compiled['args'] = ['b', $burst, $ticks, $unit];
        }
        return $compiled;
    }

    public static function escape(string $name): string
    {
        if ($name === '') {
            return '%';
        }
        $escaped = preg_replace_callback('/[\x00-\x20\x7f%{}]/', fn (array $m): string => sprintf('%%%02X', ord($m[0])), $name);
        return strlen($escaped) > 512 ? '%~' . hash('sha256', $name) : $escaped;
    }

    private static function group(string $name): string
    {
        return str_replace(':', '%3A', self::escape($name));
    }

    private static function short(int $ms): string
    {
        foreach ([86_400_000 => 'd', 3_600_000 => 'h', 60_000 => 'm', 1_000 => 's'] as $length => $name) {
            if ($ms % $length === 0) {
                return intdiv($ms, $length) . $name;
            }
        }
        return $ms . 'ms';
    }

    private static function whole(string $what, mixed $n, int $least, int $most): int
    {
        if (!is_int($n) || $n < $least || $n > $most) {
            throw new \ValueError("$what is not from $least to $most");
        }
        return $n;
    }
}
