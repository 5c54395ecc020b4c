#include "data/world/story.h"

#include <algorithm>

namespace hadal::world {
namespace {

// {p} and {q} two people, {c} city and {j} job of p, {t} thing, {n} its price, {k} container, {r} room.
using Scene = std::array<std::string_view, 4>;
constexpr size_t scenes = 10;

constexpr std::array<Scene, scenes> english_scenes = {{
    {"{p} lives in {c} and works as a {j}.", "In {c} there lives a {j} whose name is {p}.", "{p} is a {j} and has a small house in {c}.",
     "There was once a {j} in {c}, and people called the {j} {p}."},
    {"One morning the sun is shining.", "It is a cold day, and the wind blows through the streets.", "It rains, but that does not matter.",
     "The week is over, and nobody has to work today."},
    {"{p} thinks of {q}, an old friend.", "Soon {q} will come to visit.", "A letter from {q} lies on the table.",
     "{p} has not seen {q} for a long time."},
    {"\"A gift would be nice,\" says {p}.", "{p} wants to make {q} happy.", "{p} does not know yet what {q} would like.",
     "So {p} takes some money and leaves the house."},
    {"At the market {p} buys a new {t} for {n} coins.", "In a little shop there is a new {t}, and it costs {n} coins. {p} buys it.",
     "A man sells a new {t} to {p} and takes {n} coins for it.", "For {n} coins {p} gets a new {t}."},
    {"At home {p} puts the {t} into the {k}.", "{p} carries the {t} home and hides it in the {k}.",
     "Back at home, the {t} goes into the {k}.", "Nobody shall see the {t}, so {p} lays it in the {k}."},
    {"The {k} stands in the {r}.", "The {k} is in the {r}, where it is quiet.", "Then {p} brings the {k} to the {r}.",
     "The {k} has its place in the {r}."},
    {"In the evening {q} knocks at the door.", "After an hour {q} arrives.", "When {q} comes, they drink tea together.",
     "The next day {q} comes in and sits down."},
    {"{p} opens the {k} and gives the {t} to {q}.", "\"Look into the {k},\" says {p}, and {q} finds the {t}.",
     "{q} looks into the {k} and sees the {t}. \"It is yours,\" says {p}.", "{p} takes the {t} out of the {k}. \"This is for you, {q}.\""},
    {"{q} is very happy.", "\"Thank you, {p}!\" says {q}.", "{q} laughs and takes the {t} home.", "They talk until it is dark outside."},
}};

constexpr std::array<Scene, scenes> chinese_scenes = {{
    {"{p}住在{c}，是一名{j}。", "在{c}有一名{j}，名字叫{p}。", "{p}是{j}，在{c}有一所小房子。", "从前，{c}有一名{j}，大家叫他的名字{p}。"},
    {"一天早上，太阳出来了。", "这一天很冷，街上刮着风。", "外面下着雨，不过没关系。", "周末到了，今天大家都不用上班。"},
    {"{p}想起了老朋友{q}。", "{q}很快就要来做客。", "桌上有一封{q}写来的信。", "{p}很久没有见到{q}了。"},
    {"“送一件礼物吧。”{p}说。", "{p}想让{q}高兴。", "{p}还不知道{q}喜欢什么。", "于是{p}带上钱，出了家门。"},
    {"{p}在市场上花{n}元买了新的{t}。", "小店里有新的{t}，卖{n}元，{p}把它买了下来。", "有人把新的{t}卖给{p}，收了{n}元。",
     "{p}用{n}元换来了新的{t}。"},
    {"回到家，{p}把{t}放进{k}里。", "{p}把{t}带回家，藏在{k}里。", "到家以后，{t}就放进了{k}。", "{p}不想让人看见{t}，就把它放在{k}里。"},
    {"{k}放在{r}里。", "{k}在{r}里，那里很安静。", "然后{p}把{k}搬到{r}。", "{r}里有放{k}的地方。"},
    {"晚上，{q}来敲门。", "过了一个小时，{q}到了。", "{q}来了，他们一起喝茶。", "第二天，{q}走进来坐下。"},
    {"{p}打开{k}，把{t}送给{q}。", "“看看{k}里有什么。”{p}说。{q}找到了{t}。", "{q}往{k}里一看，看见了{t}。“这是你的。”{p}说。",
     "{p}从{k}里拿出{t}，说：“{q}，这是给你的。”"},
    {"{q}非常高兴。", "“谢谢你，{p}！”{q}说。", "{q}笑了，把{t}带回了家。", "他们一直聊到天黑。"},
}};

template <class F>
std::optional<Fact> find(const World& world, Relation relation, F&& fits) {
  const auto found =
      std::find_if(world.facts.begin(), world.facts.end(), [&](const Fact& fact) { return fact.relation == relation && fits(fact); });
  return found == world.facts.end() ? std::nullopt : std::optional(*found);
}

}  // namespace

std::optional<std::string> tell_story(const Language& language, const World& world, Dice& dice) {
  const auto of = [](int32_t subject) { return [subject](const Fact& fact) { return fact.subject == subject; }; };
  const Fact price = dice.pick(world.of(Relation::price));
  const auto place = find(world, Relation::container, of(price.subject));
  const auto room = place ? find(world, Relation::room, of(place->value)) : std::nullopt;
  const Fact home = dice.pick(world.of(Relation::city)), other = dice.pick(world.of(Relation::born));
  const auto job = find(world, Relation::job, of(home.subject));
  if (!room || !job || other.subject == home.subject) return {};

  const Filling filling = {{'p', name_of(language, Kind::person, home.subject)},    {'q', name_of(language, Kind::person, other.subject)},
                           {'c', name_of(language, Kind::city, home.value)},        {'j', name_of(language, Kind::job, job->value)},
                           {'t', name_of(language, Kind::thing, price.subject)},    {'n', name_of(language, Kind::price, price.value)},
                           {'k', name_of(language, Kind::container, place->value)}, {'r', name_of(language, Kind::room, room->value)}};
  std::string text;
  for (const Scene& scene : language.name == english().name ? english_scenes : chinese_scenes) {
    if (!text.empty()) text += language.between;
    text += fill(scene[dice.below(scene.size())], filling);
  }
  return text;
}

}  // namespace hadal::world
