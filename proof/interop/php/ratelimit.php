<?php

declare(strict_types=1);

// What the tests run: php ratelimit.php vectors|share|places|calls SOCKET [PLAN ROUNDS [CALLERS]]. It prints one line of JSON.
namespace Flatrate;

error_reporting(E_ALL);
set_error_handler(fn ($no, $message, $file, $line) => throw new \ErrorException($message, 0, $no, $file, $line));
require __DIR__ . '/../../../docs/recipes/ratelimit/recipe.php';

[, $what, $socket] = $argv;
$client = new \Redis();
$client->connect($socket);
$client->setOption(\Redis::OPT_READ_TIMEOUT, 10);
$wrong = [];

function limiterOf(array $plan): RateLimiter
{
    global $client;
    return new RateLimiter($client, $plan['limits'], 'fr', $plan['name'] ?? '');
}

function vectors(): array
{
    global $client, $wrong;
    $plans = json_decode(file_get_contents(__DIR__ . '/../../../docs/recipes/ratelimit/vectors.json'), true, 512, JSON_THROW_ON_ERROR)['plans'];
    $steps = 0;
    foreach ($plans as $p) {
        $client->flushAll();
        $limiter = limiterOf($p);
        if ($limiter->keys($p['subject']) !== $p['keys']) {
            $wrong[] = $p['says'] . ': keys ' . implode(' ', $limiter->keys($p['subject']));
        }
        $limits = (new \ReflectionProperty($limiter, 'limits'))->getValue($limiter);
        $args = array_map(strval(...), array_merge(...array_column($limits, 'args')));
        if ($args !== $p['args']) {
            $wrong[] = $p['says'] . ': arguments ' . implode(' ', $args);
        }
        foreach ($p['steps'] as $s) {
            $got = $limiter->run($p['subject'], $s['token'], $s['cost'], $s['count'], $s['now']);
            if ($got !== $s['reply']) {
                $wrong[] = $p['says'] . ", step $steps: " . json_encode($got);
            }
            $steps++;
        }
    }
    return ['keys' => count($plans), 'steps' => $steps];
}

// Takes units until there are none.
function share(array $plan, int $rounds, int $callers): array
{
    global $client, $wrong;
    $limiter = limiterOf($plan);
    $turns = 0;
    $client->incr('here');
    while ((int) $client->get('here') < $callers) { // until all are here
        usleep(1000);
    }
    for ($denied = 0; $denied < $rounds;) {
        $result = $limiter->allow('shared');
        $turns += $result['granted'];
        if (!$result['allowed']) {
            $denied++;
            if (!($result['retryAfter'] > 0) || min(array_column($result['limits'], 'remaining')) > 0) {
                $wrong[] = 'denied: ' . json_encode($result);
            }
        }
    }
    return ['turns' => $turns];
}

// Holds places of a limit of two, and looks at how many are inside.
function places(array $plan, int $rounds): array
{
    global $client, $wrong;
    $limiter = limiterOf($plan);
    $turns = $overlaps = 0;
    while ($turns < $rounds) {
        $result = $limiter->allow('shared');
        if (!$result['allowed']) {
            usleep(1000);
            continue;
        }
        $turns++;
        $overlaps += $client->incr('inside') > 2 ? 1 : 0;
        usleep(random_int(0, 3000));
        $client->decr('inside');
        if (!$limiter->release('shared', $result)) {
            $wrong[] = 'a place was lost';
        }
        if ($limiter->release('shared', $result)) {
            $wrong[] = 'a place was released twice';
        }
    }
    return ['turns' => $turns, 'overlaps' => $overlaps];
}

// Goes through what the others leave out.
function calls(): array
{
    global $client, $wrong;
    $limiter = new RateLimiter($client, [['algorithm' => 'bucket', 'limit' => 1, 'window' => 3_600_000, 'burst' => 10]]);
    $most = $limiter->allowAtMost('a', 7);
    $limiter->refund('a', $most, 2);
    $peek = $limiter->peek('a', 5);
    $never = $limiter->allow('a', 11);
    $many = $limiter->allow('a', 6);
    if ($most['granted'] !== 7 || !$peek['allowed'] || $peek['granted'] !== 0 || $peek['limits'][0]['remaining'] !== 5) {
        $wrong[] = print_r([$most, $peek], true);
    }
    if ($never['allowed'] || $never['retryAfter'] !== INF || $many['allowed'] || $many['retryAfter'] <= 3_590_000 || $many['retryAfter'] > 3_600_000) {
        $wrong[] = print_r([$never, $many], true);
    }
    $fixed = ['algorithm' => 'fixed', 'limit' => 1, 'window' => 1];
    foreach ([
        fn () => $limiter->allow('a', 0), fn () => $limiter->allow('a', 2 ** 54),
        fn () => new RateLimiter($client, []), fn () => new RateLimiter($client, [$fixed], 'a{b'),
        fn () => new RateLimiter($client, [['algorithm' => 'gcra'] + $fixed]), fn () => new RateLimiter($client, [['limit' => 0] + $fixed]),
        fn () => new RateLimiter($client, [['window' => 1.5] + $fixed]),
        fn () => new RateLimiter($client, [['algorithm' => 'quota', 'limit' => 1, 'period' => 'year']]),
        fn () => new RateLimiter($client, array_fill(0, 2, ['algorithm' => 'concurrency', 'limit' => 1])),
    ] as $i => $bad) {
        try {
            $bad();
            $wrong[] = "accepted bad argument $i";
        } catch (\ValueError) {
        }
    }
    $client->script('flush');
    $limiter->peek('a'); // sends the script again
    $client->config('SET', 'maxmemory', '1');
    try {
        $limiter->allow('a');
        $wrong[] = 'admitted by a full server';
    } catch (\RedisException) {
    }
    return [];
}

$result = match ($what) {
    'vectors' => vectors(),
    'share' => share(json_decode($argv[3], true), (int) $argv[4], (int) $argv[5]),
    'places' => places(json_decode($argv[3], true), (int) $argv[4]),
    'calls' => calls(),
};
echo json_encode($result + ['wrong' => $wrong]), "\n";
