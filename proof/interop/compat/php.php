<?php

declare(strict_types=1);

// What the tests run: php php.php phpredis|predis HOST PORT TLSPORT CAFILE. It prints one line of JSON.
error_reporting(E_ALL & ~E_DEPRECATED);
set_error_handler(function ($no, $message, $file, $line) {
    if (error_reporting() & $no) {
        throw new ErrorException($message, 0, $no, $file, $line);
    }
    return true;
});

[, $which, $host, $port, $tlsPort, $ca] = $argv;
$predis = $which === 'predis';
if ($predis) {
    require 'Predis/autoload.php'; // of the package php-nrk-predis
}
$results = [];

function connect(bool $tls = false)
{
    global $predis, $host, $port, $tlsPort, $ca;
    if ($predis) {
        return new Predis\Client($tls
            ? ['scheme' => 'tls', 'host' => 'localhost', 'port' => (int)$tlsPort, 'ssl' => ['cafile' => $ca, 'verify_peer' => true]]
            : ['host' => $host, 'port' => (int)$port, 'read_write_timeout' => 10]);
    }
    $client = new Redis();
    if ($tls) {
        $client->connect('tls://localhost', (int)$tlsPort, 5, null, 0, 10, ['stream' => ['cafile' => $ca, 'verify_peer' => true]]);
    } else {
        $client->connect($host, (int)$port, 5);
        $client->setOption(Redis::OPT_READ_TIMEOUT, 10);
    }
    return $client;
}

function same($got, $want, string $what): void
{
    if ($got !== $want) {
        throw new RuntimeException("$what: " . json_encode($got) . ', not ' . json_encode($want));
    }
}

function feature(string $name, callable $run): void
{
    global $results;
    try {
        $results[$name] = $run() ?? 'yes';
    } catch (Throwable $error) {
        $results[$name] = get_class($error) . ': ' . $error->getMessage();
    }
}

const SCRIPT = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";
$c = connect();

feature('strings', function () use ($c, $predis) {
    same((string)($predis ? $c->set('s', 'v', 'EX', 300) : ($c->set('s', 'v', ['ex' => 300]) ? 'OK' : '')), 'OK', 'SET EX');
    same($c->get('s'), 'v', 'GET');
    same((bool)($predis ? $c->set('lock', 'me', 'PX', 5000, 'NX') : $c->set('lock', 'me', ['nx', 'px' => 5000])), true, 'SET NX');
    same((bool)($predis ? $c->set('lock', 'you', 'PX', 5000, 'NX') : $c->set('lock', 'you', ['nx', 'px' => 5000])), false, 'a second SET NX');
    same($c->incr('n'), 1, 'INCR');
    same((int)$c->expire('n', 60), 1, 'EXPIRE');
});
feature('hashes', function () use ($c, $predis) {
    $predis ? $c->hmset('h', ['id' => '1', 'name' => 'Alice']) : $c->hMSet('h', ['id' => '1', 'name' => 'Alice']);
    same($c->hget('h', 'name'), 'Alice', 'HGET');
    same(array_values($c->hmget('h', ['id', 'name'])), ['1', 'Alice'], 'HMGET');
    same($c->hgetall('h'), ['id' => '1', 'name' => 'Alice'], 'HGETALL');
});
feature('lists', function () use ($c) {
    same($c->lpush('l', 'job'), 1, 'LPUSH');
    same($c->brpop(['l'], 1), ['l', 'job'], 'BRPOP');
    same((bool)$c->brpop(['l'], 1), false, 'an empty BRPOP');
});
feature('streams', function () use ($c, $predis) {
    $raw = fn (...$args) => $predis ? $c->executeRaw($args) : $c->rawCommand(...$args);
    $raw('XGROUP', 'CREATE', 'x', 'g', '0', 'MKSTREAM');
    $id = $predis ? $raw('XADD', 'x', '*', 'order', '9876') : $c->xAdd('x', '*', ['order' => '9876']);
    $got = $predis ? $raw('XREADGROUP', 'GROUP', 'g', 'a', 'COUNT', '10', 'BLOCK', '100', 'STREAMS', 'x', '>')[0][1][0][0]
        : array_key_first($c->xReadGroup('g', 'a', ['x' => '>'], 10, 100)['x']);
    same($got, $id, 'XREADGROUP');
    same((int)$raw('XPENDING', 'x', 'g')[0], 1, 'XPENDING');
    same((int)($predis ? $raw('XACK', 'x', 'g', $id) : $c->xAck('x', 'g', [$id])), 1, 'XACK');
    return $predis ? 'raw commands' : null; // this version of it has no methods for streams
});
feature('sorted sets', function () use ($c, $predis) {
    $pipe = $predis ? $c->pipeline() : $c->multi(Redis::PIPELINE);
    $pipe->zremrangebyscore('z', '-inf', '5');
    $predis ? $pipe->zadd('z', ['a' => 10]) : $pipe->zAdd('z', 10, 'a');
    $pipe->zcard('z');
    $pipe->pexpire('z', 60000);
    same(array_map('intval', $predis ? $pipe->execute() : $pipe->exec()), [0, 1, 1, 1], 'the pipeline');
});
feature('scripts', function () use ($c, $predis) {
    $run = fn ($token) => $predis ? $c->eval(SCRIPT, 1, 'lock', $token) : $c->eval(SCRIPT, ['lock', $token], 1);
    same($run('you'), 0, 'EVAL');
    same($run('me'), 1, 'EVAL');
    $sha = $c->script('load', 'return ARGV[1]');
    same($predis ? $c->evalsha($sha, 1, 'k', 'x') : $c->evalSha($sha, ['k', 'x'], 1), 'x', 'EVALSHA');
});
feature('pub/sub', function () use ($c, $predis) {
    $heard = null;
    $sub = connect();
    if ($predis) {
        $loop = $sub->pubSubLoop(['subscribe' => 'news']);
        foreach ($loop as $message) {
            if ($message->kind === 'subscribe') {
                $c->publish('news', 'hello');
            } else {
                $heard = $message->payload;
                $loop->stop(true);
                break;
            }
        }
    } else {
        // subscribe blocks until the callback leaves it: another process speaks, once somebody listens.
        $code = '$c = new Redis(); $c->connect($argv[1], (int)$argv[2]); for ($i = 0; $i < 500 && !$c->publish("news", "hello"); $i++) { usleep(10000); }';
        $speaker = proc_open([PHP_BINARY, '-r', $code, '--', $GLOBALS['host'], $GLOBALS['port']], [], $pipes);
        try {
            $sub->subscribe(['news'], function ($redis, $channel, $message) use (&$heard) {
                $heard = $message;
                $redis->close(); // nothing else ends subscribe
            });
        } catch (RedisException $closed) {
            if ($heard === null) {
                throw $closed;
            }
        } finally {
            proc_close($speaker);
        }
    }
    same($heard, 'hello', 'the message');
});
feature('RESP3', fn () => 'not in it');
feature('TLS', function () use ($predis) {
    $secure = connect(true);
    same(in_array((string)$secure->ping(), ['PONG', '1', '+PONG'], true), true, 'PING');
});

echo json_encode(['version' => $predis ? Predis\Client::VERSION : phpversion('redis'), 'results' => $results]), "\n";
