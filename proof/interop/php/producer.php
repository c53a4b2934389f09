<?php

// What the tests run: php producer.php vectors | send SOCKET NAME N. It prints one line of JSON.

declare(strict_types=1);

use Flatrate\NoQueue;
use Flatrate\Producer;

require __DIR__ . '/../../../docs/recipes/queue/recipe.php';

$wrong = [];
$steps = 0;
$check = function (string $about, mixed $got, mixed $want) use (&$wrong, &$steps): void {
    $steps++;
    if ($got !== $want) {
        $wrong[] = "$about: " . json_encode($got) . ', want ' . json_encode($want);
    }
};

if ($argv[1] === 'vectors') {
    $v = json_decode(file_get_contents(__DIR__ . '/../../../docs/recipes/queue/vectors.json'), true, 512, JSON_THROW_ON_ERROR);
    foreach ($v['keys'] as $k) {
        $check($k['name'], (new Producer(new Redis(), $k['name']))->keys($k['partition']), $k['keys']);
    }
    foreach ($v['partitions'] as $p) {
        $check($p['key'], Producer::partition($p['key'], $p['parts']), $p['partition']);
    }
    foreach ($v['messages'] as $m) {
        $check($m['id'], base64_encode(Producer::argument($m['id'], base64_decode($m['body']), $m, $m['fifo'], $m['parts'])), $m['argument']);
    }
} else {
    $redis = new Redis();
    $redis->connect($argv[2]);
    $redis->setOption(Redis::OPT_READ_TIMEOUT, 10);
    $producer = new Producer($redis, $argv[3]);
    for ($i = 0; $i < (int) $argv[4]; $i++) {
        $sent = $producer->send("php $i", ['group' => 'php', 'dedup' => "php $i", 'attributes' => ['n' => (string) $i]]);
        $check('sent', [strlen($sent['id']), $sent['duplicate']], [22, false]);
        $again = $producer->send('again', ['group' => 'php', 'dedup' => "php $i"]);
        $check('again', [$again['id'], $again['duplicate']], [$sent['id'], true]);
    }
    try {
        $producer->send(str_repeat('x', 300_000), ['group' => 'php']);
        $wrong[] = 'a body over the limit';
    } catch (ValueError) {
    }
    try {
        (new Producer($redis, 'nothere'))->send('');
        $wrong[] = 'a queue that is not there';
    } catch (NoQueue) {
    }
}
echo json_encode(['Steps' => $steps, 'Wrong' => $wrong]), "\n";
