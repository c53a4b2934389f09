<?php

declare(strict_types=1);

// What the tests run: php queues.php vectors|calls|send|wake SOCKET [ROUNDS]. It prints one line of JSON.
namespace Flatrate;

error_reporting(E_ALL);
set_error_handler(fn ($no, $message, $file, $line) => throw new \ErrorException($message, 0, $no, $file, $line));
require __DIR__ . '/../../../docs/recipes/queue/recipe.php';

[, $what, $socket] = $argv;
$client = new \Redis();
$client->connect($socket);
$client->setOption(\Redis::OPT_READ_TIMEOUT, 10);
$wrong = [];

function vectors(): array
{
    global $client, $wrong;
    $v = json_decode(file_get_contents(__DIR__ . '/../../../docs/recipes/queue/vectors.json'), true, 512, JSON_THROW_ON_ERROR);
    $declare = file_get_contents(__DIR__ . '/../../../queue/declare.lua');
    $steps = 0;
    foreach ($v['keys'] as $k) {
        if ((new Producer($client, $k['name']))->keys($k['partition']) !== $k['keys']) {
            $wrong[] = 'keys of ' . $k['name'];
        }
    }
    foreach ($v['places'] as $p) {
        if (Producer::partitionOf($p['where'], $p['parts']) !== $p['partition']) {
            $wrong[] = json_encode($p);
        }
    }
    foreach ($v['queues'] as $q) {
        $check = function (array $all) use ($client, $q, &$wrong): void {
            foreach ($all as ['command' => $command, 'reply' => $reply]) {
                $got = $client->rawCommand(...$command);
                if ($got !== $reply && !($got === true && $reply === 'OK')) {
                    $wrong[] = $q['says'] . ': ' . implode(' ', $command) . ': ' . json_encode($got);
                }
            }
        };
        $client->flushAll();
        $producer = new Producer($client, $q['name']);
        $producer->become($q['fifo'], $q['parts']);
        for ($i = 0; $i < $q['parts']; $i++) {
            $client->eval($declare, [...$producer->keys($i), ...$q['declare']], 2);
        }
        $check($q['before'] ?? []);
        foreach ($q['steps'] as $s) {
            $args = [];
            foreach ($s['messages'] as $m) {
                $options = [];
                foreach (['attributes' => 'attributes', 'group' => 'group', 'dedup_id' => 'dedupId', 'delay' => 'delay', 'unique' => 'unique', 'unique_for' => 'uniqueFor'] as $name => $option) {
                    if (isset($m[$name])) {
                        $options[$option] = $m[$name];
                    }
                }
                $got = $producer->message($m['id'], isset($m['body_base64']) ? base64_decode($m['body_base64']) : $m['body'], $options);
                if ($got['arg'] !== ($m['arg'] ?? base64_decode($m['arg_base64'] ?? ''))) {
                    $wrong[] = "{$q['says']}, {$m['id']}: " . $got['arg'];
                }
                if ($got['where'] !== '' && Producer::partitionOf($got['where'], $q['parts']) !== $s['partition']) {
                    $wrong[] = "{$q['says']}, {$m['id']}: " . $got['where'];
                }
                $args[] = $got['arg'];
            }
            $got = $producer->run($s['partition'], $args, $s['now']);
            if ($got !== $s['reply']) {
                $wrong[] = "{$q['says']}, step $steps: " . json_encode($got);
            }
            $steps++;
        }
        $check($q['after']);
    }
    return ['keys' => count($v['keys']), 'steps' => $steps];
}

// Sends numbers in groups, each twice: the second one is a duplicate.
function send(int $rounds): array
{
    global $client, $wrong;
    $producer = new Producer($client, 'shared');
    for ($i = 0; $i < $rounds; $i++) {
        $batch = array_map(fn ($g) => ['body' => "php $g $i", 'group' => "g$g", 'dedupId' => "php $g $i", 'attributes' => ['from' => 'php']], range(0, 3));
        $one = fn ($m) => $producer->send($m['body'], array_diff_key($m, ['body' => 1]));
        $sent = [$one($batch[0]), ...$producer->sendBatch(array_slice($batch, 1))];
        $again = [...$producer->sendBatch(array_slice($batch, 0, 3)), $one($batch[3])];
        foreach ($sent as $n => $s) {
            if (isset($s['error']) || $s['duplicate'] || $s['sequence'] < 1 || !$again[$n]['duplicate'] || $again[$n]['id'] !== $s['id']) {
                $wrong[] = print_r([$s, $again[$n]], true);
            }
        }
    }
    return ['turns' => 4 * $rounds];
}

function wake(): array
{
    global $client;
    $sent = (new Producer($client, 'waited'))->send("\x00\xff");
    return ['turns' => $sent['duplicate'] ? 0 : 1];
}

// Goes through what the others leave out.
function calls(): array
{
    global $client, $wrong;
    $small = new Producer($client, 'small'); // room for two messages
    $full = $small->sendBatch([['body' => '1'], ['body' => '2'], ['body' => '3']]);
    if (isset($full[1]['error']) || !isset($full[0]['id']) || !($full[2]['error'] instanceof FullException)) {
        $wrong[] = print_r($full, true);
    }
    $many = new Producer($client, 'many', maxBody: 400_000); // standard, three partitions
    $large = $many->sendBatch([...array_map(fn ($i) => ['body' => "$i"], range(1, 300)), ...array_fill(0, 5, ['body' => str_repeat('x', 400_000)])]);
    if (array_filter($large, fn ($s) => isset($s['error']) || $s['duplicate']) !== [] || count(array_unique(array_column($large, 'id'))) !== 305) {
        $wrong[] = 'many';
    }
    $deleted = new Producer($client, 'deleted');
    $deleted->become(false, 1);
    $fifo = new Producer($client, 'fifo');
    foreach ([
        [FullException::class, fn () => $small->send('4')], [QueueException::class, fn () => (new Producer($client, 'missing'))->send('x')],
        [QueueException::class, fn () => $deleted->send('x')], [QueueException::class, fn () => $fifo->send('x')],
        [QueueException::class, fn () => $fifo->send('x', ['group' => 'g', 'delay' => 5])],
        [\ValueError::class, fn () => $many->send('x', ['dedup_id' => 'd'])], [\ValueError::class, fn () => $many->send(str_repeat('x', 400_001))],
        [\ValueError::class, fn () => $many->send('x', ['group' => str_repeat('x', 129)])], [\ValueError::class, fn () => $many->send('x', ['group' => null])],
        [\ValueError::class, fn () => $many->send('x', ['attributes' => ['fr.x' => '1']])], [\ValueError::class, fn () => $many->send('x', ['attributes' => ['' => '1']])],
        [\ValueError::class, fn () => $many->send('x', ['attributes' => array_fill(0, 101, '')])], [\ValueError::class, fn () => $many->send('x', ['attributes' => ['a' => 1]])],
        [\ValueError::class, fn () => $many->send('x', ['delay' => 1.5])], [\ValueError::class, fn () => $many->send('x', ['delay' => -1])],
        [\ValueError::class, fn () => $many->send('x', ['uniqueFor' => 5])], [\ValueError::class, fn () => new Producer($client, 'x', 'a{b')],
        [\ValueError::class, fn () => new Producer($client, '')], [\ValueError::class, fn () => new Producer($client, str_repeat('x', 257))],
    ] as $i => [$class, $bad]) {
        try {
            $bad();
            $wrong[] = "accepted bad argument $i";
        } catch (\Throwable $err) {
            if (!$err instanceof $class) {
                $wrong[] = "bad argument $i: " . $err::class . ' ' . $err->getMessage();
            }
        }
    }
    $client->script('flush');
    $many->send('x'); // sends the script again
    $client->config('SET', 'maxmemory', '1');
    try {
        $many->send('x');
        $wrong[] = 'taken by a full server';
    } catch (\RedisException) {
    }
    return [];
}

$result = match ($what) {
    'vectors' => vectors(),
    'send' => send((int) $argv[3]),
    'wake' => wake(),
    'calls' => calls(),
};
echo json_encode($result + ['wrong' => $wrong], JSON_INVALID_UTF8_SUBSTITUTE), "\n";
